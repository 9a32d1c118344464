"""Encode a whole split, or a list of raw values, with a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault, Reject, blamed_on_record
from data_pipelines.loader import Source, eval_batches, numeric
from data_pipelines.pipeline import Pipeline, stack
from mmcl.evals.embedded import Embedded
from mmcl.mesh import AnyMesh
from mmcl.models.embedding import unit
from mmcl.models.towers import Towers
from mmcl.stops import Halted

EncodeBatch = Callable[[str, Mapping[str, Any]], np.ndarray]  # (modality, inputs) -> z_BxD


def make_encoders(
    towers: Towers, mesh: AnyMesh, prefix: int | None = None
) -> dict[str, Callable[[Any, Any], jax.Array]]:
    """modality -> compiled function (its tower's parameters, inputs) -> z_BxD, unit rows, whole on
    every device.

    Args:
        prefix: how many leading dimensions are left; None: all.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def encoder(modality: str) -> Callable[[Any, Any], jax.Array]:
        def encode(tower_params: Any, inputs: Any) -> jax.Array:
            embedding = towers.encode({modality: tower_params}, modality, inputs, train=False)
            return unit(embedding.z[:, :prefix]).astype("float32")

        return jax.jit(encode, out_shardings=everywhere)

    return {modality: encoder(modality) for modality in towers.modules}


def embed(
    encode_batch: EncodeBatch,
    source: Source,
    pipeline: Pipeline,
    *,
    split: str,
    batch_size: int,
    modalities: Sequence[str] | None = None,
    halt: Callable[[], bool] | None = None,
) -> Embedded:
    """Every record of one split through the towers of `modalities`; those of all the pipeline's
    transforms by default.

    Args:
        halt: asked before each batch whether to leave off.

    Raises:
        Halted: `halt` said so.
        InputError: no record of the split can be used.
    """
    z: dict[str, list[np.ndarray]] = {m: [] for m in modalities or pipeline.transforms}
    present: dict[str, list[np.ndarray]] = {m: [] for m in z}
    shown: dict[str, list[str] | Pictures] = {}
    used: list[int] = []
    labels: dict[str, list[np.ndarray]] = {name: [] for name in source.label_names}
    ids: list[str] = []
    rejected: list[Reject] = []
    batches = eval_batches(source, pipeline, batch_size=batch_size)
    for first, batch in zip(range(0, len(source), batch_size), batches):
        if halt is not None and halt():
            raise Halted
        rejected.extend(batch["rejected"])
        bad = {one.index for one in batch["rejected"]}
        last = min(first + batch_size, len(source))
        rows = [record - first for record in range(first, last) if record not in bad]
        if not rows:
            continue
        arrays = numeric(batch)
        for modality in z:
            z[modality].append(encode_batch(modality, arrays[modality])[rows])
            present[modality].append(batch["present"][modality][rows])
        used.extend(first + row for row in rows)
        for modality in pipeline.transforms:
            things, ids_B = _things(batch[modality]), batch["id"]
            if modality not in shown:
                is_picture = not isinstance(_look(things[rows[0]], ids_B[rows[0]]), str)
                shown[modality] = Pictures(source, pipeline, modality, used) if is_picture else []
            if isinstance(words := shown[modality], list):
                words.extend(str(_look(things[row], ids_B[row])) for row in rows)
        for name in labels:
            labels[name].append(batch[name][rows])
        ids.extend(batch["id"][rows])
    if rejected and not ids:
        raise InputError(
            f"No record of '{split}' can be used; the last: {rejected[-1].kind}, "
            f"{rejected[-1].reason}."
        )
    found = {name: np.concatenate(parts) for name, parts in labels.items()}
    return Embedded(
        split=split,
        z={modality: np.concatenate(parts) for modality, parts in z.items()},
        labels={"concept": np.arange(len(ids), dtype=np.int32), **found},
        shown=dict(shown),
        ids=ids,
        label_names=source.label_names,
        rejected=rejected,
        present={m: has_N for m, of in present.items() if not (has_N := np.concatenate(of)).all()},
    )


class Pictures(Sequence[np.ndarray]):
    """The pictures of a split, each made again when it is looked at: together they may not fit."""

    def __init__(self, source: Source, pipeline: Pipeline, modality: str, records: Sequence[int]):
        self._source, self._pipeline = source, pipeline
        self._modality, self._records = modality, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: Any) -> Any:
        record = self._records[i]
        example = self._pipeline(self._source[record], record, seed=(0,), train=False)
        return _things(example[self._modality])


def _things(inputs: Mapping[str, Any]) -> Any:
    """What a person would look at."""
    return inputs["raw"] if "raw" in inputs else inputs["value"]


def _look(thing: Any, name: str) -> Any:
    """What stands for a value on a page: a string or a picture as it is, the id for all else."""
    if isinstance(thing, str):
        return thing
    pixels = np.asarray(thing)
    return thing if pixels.dtype == np.uint8 and pixels.shape[2:] in ((3,), (4,)) else str(name)


def encode_values(
    encode_batch: EncodeBatch,
    pipeline: Pipeline,
    modality: str,
    values: Sequence[Any],
    batch_size: int,
) -> np.ndarray:
    """Raw values of one modality (strings, pictures) -> z_NxD, rows of unit length.

    Raises:
        InputError: a value cannot be used.
    """
    parts = []
    for start in range(0, len(values), batch_size):
        chunk = list(values[start : start + batch_size])
        filled = chunk + chunk[-1:] * (batch_size - len(chunk))
        try:
            with blamed_on_record():
                made = [pipeline.apply(modality, raw, seed=(0,), train=False) for raw in filled]
        except Fault as fault:
            raise InputError(f"This cannot be used as '{modality}': {fault.reason}") from fault
        parts.append(encode_batch(modality, numeric(stack(made)))[: len(chunk)])
    return np.concatenate(parts)
