"""Saliency: how much each pixel has to do with a score, and whether that is so.

    integrated gradients(x) = (x - b) · mean over t of ds/dx at b + t (x - b),  t in [0, 1]
    Grad-CAM_u = relu( sum_c a_c A_uc ),  a_c = mean over places u of ds/dA_uc
    NormGrad_u = || A_u || · || ds/dA_u ||

with A_uc what channel c of a layer gives at place u. Integrated gradients are those of Sundararajan
et al. 2017 (arXiv 1703.01365), which P331 has too; they sum up to s(x) - s(b). Grad-CAM: P267.
NormGrad: P286, with the norm of what each place adds to the gradient of a 1 × 1 convolution's
weights. The score is the cosine with the same record's embedding in another modality; functions
here take any.

Whether a map is faithful is told by deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421):
the mean score on the way from the picture to the baseline, and from the baseline to the picture,
with pixels changed in order of the map, most salient first. Low deletion and high insertion are
good. Beside the methods stand random maps: of pixels (`random`), and of places of the layer, made
as large as the picture just as the others are (`random_grid`), for whole patches are not deleted as
single pixels are.

Decided here: the baseline is each picture's mean colour, for insertion too, where Petsiuk et al.
blur; at mid-grey, zero as the tower sees pixels, towers that normalise are so steep that no sum of
gradients is an integral. The integral is Gauss and Legendre's. Pixels of equal saliency come in
random order. A pixel of integrated gradients has the sum of its channels.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals import layers
from mmcl.evals.batches import Batch, batches
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.input_scores import Score, cosine, encoder, floats, is_pixels, slopes
from mmcl.evals.pairs import check_unit
from mmcl.evals.retrieval import items
from mmcl.mesh import split_whole_batch, whole
from mmcl.model import Model

METHODS = ("integrated_gradients", "grad_cam", "norm_grad")
PARTS = 16  # in which a picture is deleted


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    layer: str | None = None,
    records: int = 64,
    steps: int = 32,
    seed: int = 0,
) -> Figures:
    """Deletion and insertion of every method's maps of some records.

    Args:
      embedded: the split.
      model: is explained.
      modality: of the pictures.
      to: of the partner in the score.
      layer: path of the layer that Grad-CAM and NormGrad read; None: see `layers.default`.
      records: how many are explained, evenly spaced over the items of the modality.
      steps: of the integral.
      seed: of the random maps, with the number of the record.

    Returns:
      Under `saliency/<method>/`, where `random` and `random_grid` are methods too: `deletion` and
      `insertion`, mean cosines. Under `saliency/`: `score` of the pictures and of the baseline,
      `baseline_score`; `completeness_error`, how far integrated gradients are from summing up to
      their difference, on average; `count` of records.
    """
    if records < 1 or steps < 1:
        raise InputError(f"records={records}, steps={steps}: both should be 1 or more")
    record_N = spaced(items(embedded, modality, "concept"), records)
    parts: dict[str, list[np.ndarray]] = {}
    for _, found in explained(embedded, model, record_N, modality, to, layer, steps, seed):
        for name, value_R in found.figures.items():
            parts.setdefault(name, []).append(value_R)
    concept_N = embedded.labels["concept"][record_N]
    figures: Figures = {
        f"saliency/{name}": PerItem(np.concatenate(values), concept_N)
        for name, values in parts.items()
    }
    return {**figures, "saliency/count": float(len(record_N))}


class Explained(NamedTuple):
    """Some records, explained."""

    value: np.ndarray  # what the tower gets, (R, H, W, C)
    maps: dict[str, np.ndarray]  # method -> (R, H, W)
    figures: dict[str, np.ndarray]  # name -> (R,)


def explained(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    to: str,
    layer: str | None,
    steps: int,
    seed: int,
) -> Iterator[tuple[Batch, Explained]]:
    """(batch, its real records explained), batch by batch."""
    if to not in embedded.z:
        raise InputError(f"no modality '{to}' in '{embedded.split}': it has {list(embedded.z)}")
    if modality == to:
        raise InputError(f"'{modality}' is no partner of itself: name another modality")
    z_to = check_unit(embedded.z[to], to)
    for batch in batches(embedded, model, record_N):
        inputs = batch.inputs[modality]
        is_pixels(inputs, modality)
        if inputs["value"].ndim != 4:
            raise InputError(f"'{modality}' is no pictures (H, W, C), which alone are explained")
        with jax.set_mesh(model.mesh):
            arrays = dict(inputs), z_to[batch.record_B], batch.inputs["index"]
            maps, figures = _explained(
                model.params[modality],
                *split_whole_batch(arrays, model.mesh),
                seed,
                tower=layers.plain(model.towers.modules[modality]),
                dtype=model.towers.dtype,
                layer=layer,
                steps=steps,
            )
        yield (
            batch,
            Explained(
                inputs["value"][: batch.real],
                {name: np.asarray(map_BxHxW)[: batch.real] for name, map_BxHxW in maps.items()},
                {name: np.asarray(figure_B)[: batch.real] for name, figure_B in figures.items()},
            ),
        )


@functools.partial(jax.jit, static_argnames=("tower", "dtype", "layer", "steps"))
def _explained(
    params: Any,
    inputs: dict[str, Any],
    partner_BxD: jax.Array,
    index_B: jax.Array,
    seed: jax.Array,
    *,
    tower: nn.Module,
    dtype: Any,
    layer: str | None,
    steps: int,
) -> Any:
    """Maps by method, and figures of each record; whole on every device."""
    score = cosine(encoder(tower, dtype, params, inputs), partner_BxD)
    value = floats(inputs["value"])
    baseline = jnp.broadcast_to(value.mean(axis=(1, 2), keepdims=True), value.shape)
    layer = layers.default(score, value) if layer is None else layer
    attribution = integrated_gradients(score, value, baseline, steps)
    activation, slope = layers.activation_and_slope(score, value, layer)
    size = value.shape[1:3]
    chance, chance_on_grid = (
        random(index_B, seed, i, shape) for i, shape in enumerate((size, activation.shape[1:3]))
    )
    maps = {
        "integrated_gradients": attribution.sum(axis=-1),
        "grad_cam": resized(grad_cam(activation, slope), size),
        "norm_grad": resized(norm_grad(activation, slope), size),
        "random": chance,
        "random_grid": resized(chance_on_grid, size),
    }
    figures = {"score": score(value), "baseline_score": score(baseline)}
    summed_B = attribution.sum(axis=(1, 2, 3))
    figures["completeness_error"] = jnp.abs(
        summed_B - (figures["score"] - figures["baseline_score"])
    )
    ranks = jnp.stack([ranked(map_BxHxW, chance) for map_BxHxW in maps.values()])
    curves = jax.lax.map(lambda rank: deletion_and_insertion(score, value, baseline, rank), ranks)
    for name, deletion_B, insertion_B in zip(maps, *curves):
        figures |= {f"{name}/deletion": deletion_B, f"{name}/insertion": insertion_B}
    return jax.tree.map(whole, (maps, figures))


def integrated_gradients(
    score: Score, value: jax.Array, baseline: jax.Array, steps: int
) -> jax.Array:
    """In the shape of the values; each record's sum up to its score less that of its baseline."""

    at_S, weight_S = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]

    def add(total: jax.Array, at: Any) -> tuple[jax.Array, None]:
        t, weight = at
        return total + weight * slopes(score)(baseline + t * (value - baseline)), None

    nodes = (jnp.float32((1 + at_S) / 2), jnp.float32(weight_S / 2))
    total, _ = jax.lax.scan(add, jnp.zeros_like(value), nodes)
    return (value - baseline) * total


def grad_cam(activation_BxHxWxC: jax.Array, slope_BxHxWxC: jax.Array) -> jax.Array:
    """(B, H, W), 0 or more."""
    weight_BxC = slope_BxHxWxC.mean(axis=(1, 2))
    return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", activation_BxHxWxC, weight_BxC))


def norm_grad(activation_BxHxWxC: jax.Array, slope_BxHxWxC: jax.Array) -> jax.Array:
    """(B, H, W), 0 or more."""
    norms = (jnp.linalg.norm(x, axis=-1) for x in (activation_BxHxWxC, slope_BxHxWxC))
    activation_BxHxW, slope_BxHxW = norms
    return activation_BxHxW * slope_BxHxW


def random(index_B: jax.Array, seed: jax.Array, which: int, shape: Sequence[int]) -> jax.Array:
    """Uniform in [0, 1), by seed and record alone: (B, H, W)."""
    key = jax.random.fold_in(jax.random.key(seed), which)
    key_B = jax.vmap(functools.partial(jax.random.fold_in, key))(index_B)
    return jax.vmap(lambda key: jax.random.uniform(key, tuple(shape)))(key_B)


def resized(map_BxHxW: jax.Array, size: Sequence[int]) -> jax.Array:
    """As large as the picture, bilinearly."""
    return jax.image.resize(map_BxHxW, (len(map_BxHxW), *size), "bilinear", antialias=False)


def ranked(map_BxHxW: jax.Array, chance_BxHxW: jax.Array) -> jax.Array:
    """Of each pixel, 0 for the most salient: (B, H, W) int32."""
    keys = (x.reshape(len(x), -1) for x in (chance_BxHxW, -map_BxHxW))
    order_BxP = jnp.lexsort(tuple(keys), axis=-1)
    return jnp.argsort(order_BxP, axis=-1).reshape(map_BxHxW.shape)


def deletion_and_insertion(
    score: Score, value: jax.Array, baseline: jax.Array, rank_BxHxW: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean scores on the way there and back, by the trapezoidal rule: (B,) each."""
    pixels = rank_BxHxW[0].size

    def at(part: jax.Array) -> tuple[jax.Array, jax.Array]:
        gone = (rank_BxHxW * PARTS < part * pixels)[..., None]
        return (
            score(jnp.where(gone, baseline, value)),
            score(jnp.where(gone, value, baseline)),
        )

    deleted_KxB, inserted_KxB = jax.lax.map(at, jnp.arange(PARTS + 1))
    weight_K = jnp.ones(PARTS + 1).at[jnp.array([0, PARTS])].set(0.5) / PARTS
    return weight_K @ deleted_KxB, weight_K @ inserted_KxB


def spaced(record_N: np.ndarray, at_most: int) -> np.ndarray:
    """Up to so many of these, evenly spaced."""
    n = len(record_N)
    return record_N[np.linspace(0, n - 1, min(n, at_most)).round().astype(int)]
