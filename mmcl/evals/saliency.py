"""Saliency: how much each part of an input has to do with a score, and whether that is so.

`saliency_inputs.py` says what the parts are, `saliency_maps.py` has the methods, and `deletion.py`
says how faithful a map is. The score here is the cosine with the same record's embedding in another
modality; the methods take any.

Beside them stand random maps: of parts (`random`), and of places of the layer, made as large as
the input just as the others are (`random_grid`), for whole patches are not deleted as single pixels
are.

Decided here: Grad-CAM reads the last of several layers, because elsewhere it fails (P286). Where no
layer gives places to parts of the input, the maps that need one are left out.
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
from mmcl.evals.deletion import deletion_and_insertion, ranked
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.input_scores import is_ids, is_pixels
from mmcl.evals.pairs import check_unit
from mmcl.evals.retrieval import items
from mmcl.evals.saliency_inputs import parts_of
from mmcl.evals.saliency_maps import (
    combined,
    grad_cam,
    gradient_x_input,
    integrated_gradients,
    norm_grad,
    random,
    resized,
)
from mmcl.mesh import split_whole_batch, whole
from mmcl.model import Model

METHODS = ("integrated_gradients", "gradient_x_input", "grad_cam", "norm_grad")


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    layer: str | Sequence[str] | None = None,
    records: int = 64,
    steps: int = 32,
    seed: int = 0,
) -> Figures:
    """Deletion and insertion of every method's maps of some records.

    Args:
      embedded: the split.
      model: is explained.
      modality: of the inputs.
      to: of the partner in the score.
      layer: path of the layer that Grad-CAM and NormGrad read, or of several, whose maps of
        NormGrad are combined; None: see `layers.default`.
      records: how many are explained, evenly spaced over the items of the modality.
      steps: of the integral.
      seed: of the random maps, with the number of the record.

    Returns:
      Under `saliency/<method>/`, where `random` and `random_grid` are methods too: `deletion` and
      `insertion`, mean cosines. Under `saliency/`: `score` of the inputs and of the baseline,
      `baseline_score`; `completeness_error`, how far integrated gradients are from summing up to
      their difference, on average; `count` of records. Of another modality than `image` all is
      under `saliency_<modality>/`.
    """
    if records < 1 or steps < 1:
        raise InputError(f"records={records}, steps={steps}: both should be 1 or more")
    record_N = spaced(items(embedded, modality, "concept"), records)
    parts: dict[str, list[np.ndarray]] = {}
    for _, found in explained(embedded, model, record_N, modality, to, layer, steps, seed):
        for name, value_R in found.figures.items():
            parts.setdefault(name, []).append(value_R)
    concept_N = embedded.labels["concept"][record_N]
    task = "saliency" if modality == "image" else f"saliency_{modality}"
    figures: Figures = {
        f"{task}/{name}": PerItem(np.concatenate(values), concept_N)
        for name, values in parts.items()
    }
    return {**figures, f"{task}/count": float(len(record_N))}


class Explained(NamedTuple):
    """Some records, explained."""

    value: np.ndarray  # what the tower gets, (R, *places, ...)
    there: np.ndarray  # (R, *places) bool: no padding
    maps: dict[str, np.ndarray]  # method -> (R, *places), 0 on padding
    figures: dict[str, np.ndarray]  # name -> (R,)


def explained(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    to: str,
    layer: str | Sequence[str] | None,
    steps: int,
    seed: int,
) -> Iterator[tuple[Batch, Explained]]:
    """(batch, its real records explained), batch by batch."""
    if to not in embedded.z:
        raise InputError(f"no modality '{to}' in '{embedded.split}': it has {list(embedded.z)}")
    if modality == to:
        raise InputError(f"'{modality}' is no partner of itself: name another modality")
    z_to = check_unit(embedded.z[to], to)
    named = (layer,) if isinstance(layer, str) else layer and tuple(layer)
    for batch in batches(embedded, model, record_N):
        inputs = batch.inputs[modality]
        if not is_ids(inputs):
            is_pixels(inputs, modality)
        if inputs["value"].ndim < 2:
            raise InputError(f"'{modality}' is one number a record, which has no parts")
        with jax.set_mesh(model.mesh):
            arrays = dict(inputs), z_to[batch.record_B], batch.inputs["index"]
            there, maps, figures = _explained(
                model.params[modality],
                *split_whole_batch(arrays, model.mesh),
                seed,
                tower=layers.plain(model.towers.modules[modality]),
                dtype=model.towers.dtype,
                prefix=model.prefix,
                layer=named,
                steps=steps,
            )
        real = slice(batch.real)
        yield (
            batch,
            Explained(
                inputs["value"][real],
                np.asarray(there)[real],
                {name: np.asarray(map_of)[real] for name, map_of in maps.items()},
                {name: np.asarray(figure_B)[real] for name, figure_B in figures.items()},
            ),
        )


@functools.partial(jax.jit, static_argnames=("tower", "dtype", "prefix", "layer", "steps"))
def _explained(
    params: Any,
    inputs: dict[str, Any],
    partner_BxD: jax.Array,
    index_B: jax.Array,
    seed: jax.Array,
    *,
    tower: nn.Module,
    dtype: Any,
    prefix: int | None,
    layer: tuple[str, ...] | None,
    steps: int,
) -> Any:
    """Which parts are there, maps by method, and figures of each record; whole on every device."""
    it = parts_of(tower, dtype, params, inputs, partner_BxD, prefix)
    axes, size = it.there.ndim - 1, it.there.shape[1:]
    channels = tuple(range(axes + 1, it.value.ndim))
    attribution = integrated_gradients(it.score, it.value, it.baseline, steps)
    maps = {
        "integrated_gradients": attribution.sum(axis=channels),
        "gradient_x_input": gradient_x_input(it.score, it.value).sum(axis=channels),
    }
    chance = random(index_B, seed, 0, size)
    grids = {}
    default = layers.default(it.score, it.value, axes)
    if those := layer or (default and (default,)):
        read_of = [layers.activation_and_slope(it.score, it.value, axes, one) for one in those]
        maps["grad_cam"] = resized(grad_cam(*read_of[-1]), size)
        maps["norm_grad"] = combined([resized(norm_grad(*one), size) for one in read_of])
        grid = read_of[-1][0].shape[1:-1]
        grids["random_grid"] = resized(random(index_B, seed, 1, grid), size)
    maps = {
        name: jnp.where(it.there, map_of, 0)
        for name, map_of in {**maps, "random": chance, **grids}.items()
    }
    figures = {"score": it.score(it.value), "baseline_score": it.score(it.baseline)}
    summed_B = attribution.sum(axis=range(1, attribution.ndim))
    figures["completeness_error"] = jnp.abs(
        summed_B - (figures["score"] - figures["baseline_score"])
    )
    ranks = jnp.stack([ranked(map_of, chance, it.there) for map_of in maps.values()])
    curves = jax.lax.map(lambda rank: deletion_and_insertion(it.without, rank, it.there), ranks)
    for name, deletion_B, insertion_B in zip(maps, *curves):
        figures |= {f"{name}/deletion": deletion_B, f"{name}/insertion": insertion_B}
    return jax.tree.map(whole, (it.there, maps, figures))


def spaced(record_N: np.ndarray, at_most: int) -> np.ndarray:
    """Up to so many of these, evenly spaced."""
    n = len(record_N)
    return record_N[np.linspace(0, n - 1, min(n, at_most)).round().astype(int)]
