"""Encode a whole split, or a list of raw values, with a model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.loader import Source, eval_batches, numeric
from data_pipelines.pipeline import Pipeline, stack
from mmcl.evals.embedded import Embedded
from mmcl.models.embedding import unit
from mmcl.models.towers import Towers

EncodeBatch = Callable[[str, Mapping[str, Any]], np.ndarray]  # (modality, inputs) -> z_BxD


def make_encoders(towers: Towers) -> dict[str, Callable[[Any, Any], jax.Array]]:
    """modality -> compiled function (its tower's parameters, inputs) -> z_BxD, unit rows."""

    def encoder(modality: str) -> Callable[[Any, Any], jax.Array]:
        def encode(tower_params: Any, inputs: Any) -> jax.Array:
            embedding = towers.encode({modality: tower_params}, modality, inputs, train=False)
            return unit(embedding.z).astype("float32")

        return jax.jit(encode)

    return {modality: encoder(modality) for modality in towers.modules}


def embed(
    encode_batch: EncodeBatch,
    source: Source,
    pipeline: Pipeline,
    *,
    split: str,
    batch_size: int,
    modalities: Sequence[str] | None = None,
) -> Embedded:
    """Every record of one split through the towers (of `modalities`, all by default)."""
    z: dict[str, list[np.ndarray]] = {m: [] for m in modalities or pipeline.transforms}
    shown: dict[str, list[Any]] = {modality: [] for modality in pipeline.transforms}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in source.label_names}
    ids: list[str] = []
    for batch in eval_batches(source, pipeline, batch_size=batch_size):
        arrays = numeric(batch)
        for modality in z:
            z[modality].append(encode_batch(modality, arrays[modality]))
        for modality in shown:
            inputs = batch[modality]
            shown[modality].extend(inputs["raw"] if "raw" in inputs else inputs["value"])
        for name in labels:
            labels[name].append(batch[name])
        ids.extend(batch["id"])
    n = len(source)
    return Embedded(
        split=split,
        z={modality: np.concatenate(parts)[:n] for modality, parts in z.items()},
        labels={name: np.concatenate(parts)[:n] for name, parts in labels.items()},
        shown={modality: things[:n] for modality, things in shown.items()},
        ids=ids[:n],
        label_names=source.label_names,
    )


def encode_values(
    encode_batch: EncodeBatch,
    pipeline: Pipeline,
    modality: str,
    values: Sequence[Any],
    batch_size: int,
) -> np.ndarray:
    """Raw values of one modality (strings, pictures) -> z_NxD, rows of unit length."""
    parts = []
    for start in range(0, len(values), batch_size):
        chunk = list(values[start : start + batch_size])
        filled = chunk + chunk[-1:] * (batch_size - len(chunk))
        examples = [pipeline.apply(modality, raw, seed=(0,), train=False) for raw in filled]
        parts.append(encode_batch(modality, numeric(stack(examples)))[: len(chunk)])
    return np.concatenate(parts)


def run_evaluators(
    evaluators: Iterable[Callable[..., dict[str, float]]],
    embedded: Embedded,
    encode: Callable[[str, Sequence[Any]], np.ndarray],
) -> dict[str, float]:
    """All evaluators on one split: `eval/<split>/<metric>` -> number."""
    return {
        f"eval/{embedded.split}/{key}": value
        for evaluator in evaluators
        for key, value in evaluator(embedded, encode).items()
    }
