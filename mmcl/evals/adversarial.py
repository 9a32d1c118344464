"""Robustness to attacks on the inputs that the model's own gradients make.

The attack makes the cosine of a record with its own partner in another modality smaller, within a
budget e of each input value (and within the range of pixels):

    FGSM: x' = x - e · sign(g(x)),   g(x) = d cos(z(x), z_partner) / dx
    PGD:  x_0 = x + u,  u uniform in [-e, e];   x_{t+1} = clip(x_t - step · sign(g(x_t)))

FGSM is that of Goodfellow et al. 2015 (arXiv 1412.6572), PGD that of Madry et al. 2018
(arXiv 1706.06083), whose step is 2.5 e / steps here by default. P142 and P144 tell of attacks on
retrieval: theirs are carried over to other models, which this does not. Texts are attacked by
`text_attack`, and all pictures alike by `universal_attack`.

Decided here: untargeted; the attack knows the model; one start, and its last step counts, better or
not. Pixels are attacked as floats, and not rounded to 256 levels again. All items of the attacked
modality are attacked, also where they are the gallery, as in P144; each on its own record, with the
partner's embedding as it was.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.batches import batches
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.input_scores import cosine, encoder, floats, is_pixels, slopes
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.mesh import split_whole_batch, whole
from mmcl.model import Model

PIXEL_EPSILON = 4.0
ATTACKS = ("fgsm", "pgd")


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    epsilon: float | None = None,
    steps: int = 10,
    step: float | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Figures:
    """Retrieval with the items of one modality attacked, beside that with them as they are.

    Args:
      embedded: the split.
      model: is attacked.
      modality: whose inputs are changed; its tower reads pixels or floats.
      to: of the partners.
      epsilon: the budget of each value: of pixels in 1/255 of their range (None: 4), of floats in
        their own unit, without a range.
      steps: of PGD.
      step: of PGD, in the unit of epsilon; None: 2.5 epsilon / steps.
      label: items with the same value are right answers of each other.
      at: the K of recall@K.
      seed: of the random starts, with the number of the record.

    Returns:
      Under `adversarial/<from>_to_<to>/`, both ways: `clean/recall@K`, `fgsm/recall@K` and
      `pgd/recall@K`; `fgsm/success` and `pgd/success`, the share that has no right answer first any
      more, of the queries that had one; `clean/chance@K` of a random order; `clean/count` of
      queries. Under `adversarial/`: `clean/cosine`, `fgsm/cosine` and `pgd/cosine` with the
      partner.
    """
    if steps < 1 or min(1 if x is None else x for x in (epsilon, step)) <= 0:
        raise InputError(
            f"epsilon={epsilon}, steps={steps}, step={step}: steps should be 1 or more, the others "
            "above 0"
        )
    if modality == to:
        raise InputError(f"'{modality}' is no partner of itself: name another modality")
    record, gallery = items(embedded, modality, label), items(embedded, to, label)
    z_to = check_unit(embedded.z[to], to)
    z = {"clean": check_unit(embedded.z[modality][record], modality)}
    z |= attacked(embedded, model, record, modality, z_to, epsilon, steps, step, seed)
    figures: Figures = {
        f"{name}/cosine": PerItem(
            np.sum(z_NxD * z_to[record], axis=1), embedded.labels["concept"][record]
        )
        for name, z_NxD in z.items()
    }
    label_N, label_M = embedded.labels[label][record], embedded.labels[label][gallery]
    forth = {name: ranks(z_NxD, z_to[gallery], label_N, label_M) for name, z_NxD in z.items()}
    back = {name: ranks(z_to[gallery], z_NxD, label_M, label_N) for name, z_NxD in z.items()}
    figures |= answered(f"{modality}_to_{to}", forth, label_N, label_M, at)
    figures |= answered(f"{to}_to_{modality}", back, label_M, label_N, at)
    return {f"adversarial/{name}": figure for name, figure in figures.items()}


def answered(
    way: str,
    rank: dict[str, np.ndarray],
    label_Q: np.ndarray,
    label_G: np.ndarray,
    at: Sequence[int],
) -> Figures:
    """What queries of one way come to, by the ranks of their answers under each attack and none."""
    figures: Figures = {}
    right_Q = right_answers(label_Q, label_G)
    for k in at:
        for name, rank_Q in rank.items():
            figures[f"{way}/{name}/recall@{k}"] = PerItem(rank_Q <= k, label_Q)
        figures[f"{way}/clean/chance@{k}"] = chance(right_Q, len(label_G), k)
    right = rank["clean"] == 1
    for name in [name for name in rank if name != "clean"]:
        figures[f"{way}/{name}/success"] = PerItem(rank[name][right] > 1, label_Q[right])
    figures[f"{way}/clean/count"] = float(len(label_Q))
    return figures


def attacked(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    z_to: np.ndarray,
    epsilon: float | None,
    steps: int,
    step: float | None,
    seed: int,
) -> dict[str, np.ndarray]:
    """attack -> z_NxD of these records, attacked."""
    z: dict[str, list[np.ndarray]] = {name: [] for name in ATTACKS}
    for batch in batches(embedded, model, record_N):
        inputs = batch.inputs[modality]
        pixels = is_pixels(inputs, modality)
        if epsilon is None and not pixels:
            raise InputError(f"'{modality}' is no pixels: give epsilon in the unit of its values")
        budget = PIXEL_EPSILON if epsilon is None else epsilon
        size = 2.5 * budget / steps if step is None else step
        unit = 1 / 127.5 if pixels else 1.0
        with jax.set_mesh(model.mesh):
            arrays = (dict(inputs), z_to[batch.record_B], batch.inputs["index"])
            found = _attacked(
                model.params[modality],
                *split_whole_batch(arrays, model.mesh),
                np.float32(budget * unit),
                np.float32(size * unit),
                steps,
                seed,
                tower=model.towers.modules[modality],
                dtype=model.towers.dtype,
                prefix=model.prefix,
            )
        for name, z_BxD in zip(ATTACKS, jax.device_get(found)):
            z[name].append(z_BxD[: batch.real])
    return {name: check_unit(np.concatenate(parts), modality) for name, parts in z.items()}


@functools.partial(jax.jit, static_argnames=("tower", "dtype", "prefix"))
def _attacked(
    params: Any,
    inputs: dict[str, Any],
    partner_BxD: jax.Array,
    index_B: jax.Array,
    budget: jax.Array,
    step: jax.Array,
    steps: jax.Array,
    seed: jax.Array,
    *,
    tower: nn.Module,
    dtype: Any,
    prefix: int | None,
) -> tuple[jax.Array, jax.Array]:
    """z_BxD of FGSM and of PGD, whole on every device."""
    encode = encoder(tower, dtype, params, inputs, prefix)
    slope = slopes(cosine(encode, partner_BxD))
    value = floats(inputs["value"])
    low, high = bounds(value, budget, pixels=inputs["value"].dtype == jnp.uint8)
    start = jnp.clip(value + budget * directions(value, index_B, seed), low, high)
    found = (
        descend(slope, value, low, high, budget, 1),
        descend(slope, start, low, high, step, steps),
    )
    fgsm, pgd = (whole(encode(x)) for x in found)
    return fgsm, pgd


def bounds(value: jax.Array, budget: jax.Array, *, pixels: bool) -> tuple[jax.Array, jax.Array]:
    """The least and the most that each value may become."""
    low, high = value - budget, value + budget
    return (jnp.maximum(low, -1.0), jnp.minimum(high, 1.0)) if pixels else (low, high)


def directions(value: jax.Array, index_B: jax.Array, seed: jax.Array) -> jax.Array:
    """Uniform in [-1, 1), by seed and record alone."""
    key_B = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(index_B)
    shape = value.shape[1:]
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0))(key_B)


def descend(
    slope: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    low: jax.Array,
    high: jax.Array,
    step: jax.Array,
    steps: jax.Array | int,
) -> jax.Array:
    """So many steps against the sign of the slope, inside the bounds."""

    def move(_: int, x: jax.Array) -> jax.Array:
        return jnp.clip(x - step * jnp.sign(slope(x)), low, high)

    return jax.lax.fori_loop(0, steps, move, start)
