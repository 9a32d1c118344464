"""Robustness to one perturbation that is added to all inputs alike, whichever they are.

It makes the cosines of some records with their own partners in another modality smaller, within a
budget e of each value (and within the range of pixels), and is judged on the others:

    d_0 = 0;   d_{t+1} = clip( d_t - step · sign( sum_i dcos(z(x_i + d_t), z_partner_i) / dd ) )

with i over batch t of the records that it is made on. Universal perturbations: Moosavi-Dezfooli et
al. 2017 (arXiv 1610.08401); by steps along the sign, as Shafahi et al. 2020 (arXiv 1811.11304) make
them for classifiers. P142 makes them for retrieval by a generator that is trained with a
contrastive loss; decided here: none, but the same search on the values themselves, with the cosine
of `adversarial`. Values of one label are on one side, so that what is judged was never seen.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.adversarial import PIXEL_EPSILON, answered, bounds
from mmcl.evals.batches import batches
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.input_scores import cosine, encoder, floats, is_pixels
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import items
from mmcl.mesh import split_whole_batch, whole
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    epsilon: float | None = None,
    passes: int = 10,
    step: float | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Figures:
    """Retrieval among one half of the items, with what was made on the other half added to them.

    Args:
      embedded: the split.
      model: is attacked.
      modality: whose inputs are changed; its tower reads pixels or floats of one shape.
      to: of the partners.
      epsilon: the budget of each value: of pixels in 1/255 of their range (None: 4), of floats in
        their own unit, without a range.
      passes: over the records that it is made on, a step a batch.
      step: in the unit of epsilon; None: 2.5 epsilon / passes.
      label: items with the same value are right answers of each other, and in the same half.
      at: the K of recall@K.
      seed: of the halves.

    Returns:
      Under `universal_attack/<from>_to_<to>/`, both ways, of the judged half: `clean/recall@K` and
      `attacked/recall@K`; `attacked/success`, the share that has no right answer first any more, of
      the queries that had one; `clean/chance@K` of a random order; `clean/count` of queries. Under
      `universal_attack/`: `clean/cosine` and `attacked/cosine` with the partner.
    """
    if passes < 1 or min(1 if x is None else x for x in (epsilon, step)) <= 0:
        raise InputError(
            f"epsilon={epsilon}, passes={passes}, step={step}: passes should be 1 or more, the "
            "others above 0"
        )
    if modality == to:
        raise InputError(f"'{modality}' is no partner of itself: name another modality")
    record, gallery = items(embedded, modality, label), items(embedded, to, label)
    of_N = embedded.labels[label]
    judged = half(of_N[record], seed)
    if len(judged) < 1:
        raise InputError(f"'{label}' of '{embedded.split}' has one value: no half is left to judge")
    made_on = record[~np.isin(of_N[record], judged)]
    record, gallery = (those[np.isin(of_N[those], judged)] for those in (record, gallery))
    z_to = check_unit(embedded.z[to], to)
    delta = made(embedded, model, made_on, modality, z_to, epsilon, passes, step)
    z = {"clean": check_unit(embedded.z[modality][record], modality)}
    z["attacked"] = perturbed(embedded, model, record, modality, delta)
    figures: Figures = {
        f"{name}/cosine": PerItem(
            np.sum(z_NxD * z_to[record], axis=1), embedded.labels["concept"][record]
        )
        for name, z_NxD in z.items()
    }
    label_N, label_M = of_N[record], of_N[gallery]
    forth = {name: ranks(z_NxD, z_to[gallery], label_N, label_M) for name, z_NxD in z.items()}
    back = {name: ranks(z_to[gallery], z_NxD, label_M, label_N) for name, z_NxD in z.items()}
    figures |= answered(f"{modality}_to_{to}", forth, label_N, label_M, at)
    figures |= answered(f"{to}_to_{modality}", back, label_M, label_N, at)
    return {f"universal_attack/{name}": figure for name, figure in figures.items()}


def half(label_N: np.ndarray, seed: int) -> np.ndarray:
    """Half of the values that a label has, at random."""
    value = np.unique(label_N)
    return np.sort(np.random.default_rng(seed).permutation(value)[: len(value) // 2])


def made(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    z_to: np.ndarray,
    epsilon: float | None,
    passes: int,
    step: float | None,
) -> np.ndarray:
    """The perturbation, in the shape of one record's values, as the tower sees them."""
    delta = None
    for _ in range(passes):
        for batch in batches(embedded, model, record_N):
            inputs = batch.inputs[modality]
            pixels = is_pixels(inputs, modality)
            if epsilon is None and not pixels:
                raise InputError(f"'{modality}' is no pixels: give epsilon in its values' unit")
            budget = PIXEL_EPSILON if epsilon is None else epsilon
            size = 2.5 * budget / passes if step is None else step
            unit = 1 / 127.5 if pixels else 1.0
            if delta is None:
                delta = np.zeros(inputs["value"].shape[1:], np.float32)
            with jax.set_mesh(model.mesh):
                real_B = np.arange(len(batch.record_B)) < batch.real
                arrays = (dict(inputs), z_to[batch.record_B], real_B)
                delta = _moved(
                    model.params[modality],
                    *split_whole_batch(arrays, model.mesh),
                    delta,
                    np.float32(budget * unit),
                    np.float32(size * unit),
                    tower=model.towers.modules[modality],
                    dtype=model.towers.dtype,
                    prefix=model.prefix,
                )
    return np.asarray(delta)


@functools.partial(jax.jit, static_argnames=("tower", "dtype", "prefix"))
def _moved(
    params: Any,
    inputs: dict[str, Any],
    partner_BxD: jax.Array,
    real_B: jax.Array,
    delta: jax.Array,
    budget: jax.Array,
    step: jax.Array,
    *,
    tower: nn.Module,
    dtype: Any,
    prefix: int | None,
) -> jax.Array:
    """One step further."""
    score = cosine(encoder(tower, dtype, params, inputs, prefix), partner_BxD)

    def total(delta: jax.Array) -> jax.Array:
        return jnp.sum(real_B * score(added(inputs["value"], delta)))

    return whole(jnp.clip(delta - step * jnp.sign(jax.grad(total)(delta)), -budget, budget))


def added(value: jax.Array, delta: Any) -> jax.Array:
    """Perturbed values as the tower sees them, pixels within their range."""
    low, high = bounds(floats(value), jnp.float32(jnp.inf), pixels=value.dtype == jnp.uint8)
    return jnp.clip(floats(value) + delta, low, high)


def perturbed(
    embedded: Embedded, model: Model, record_N: np.ndarray, modality: str, delta: np.ndarray
) -> np.ndarray:
    """z_NxD of these records with the perturbation added."""
    z = []
    for batch in batches(embedded, model, record_N):
        with jax.set_mesh(model.mesh):
            inputs = split_whole_batch(dict(batch.inputs[modality]), model.mesh)
            inputs = {**inputs, "value": added(inputs["value"], delta)}
            z_BxD = model.encoders[modality](model.params[modality], inputs)
        z.append(np.asarray(z_BxD)[: batch.real])
    return check_unit(np.concatenate(z), modality)
