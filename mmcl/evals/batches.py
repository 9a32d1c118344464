"""The raw inputs of an embedded split's records, batch by batch, as its towers get them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.loader import Source, eval_batches, numeric
from mmcl import experiment
from mmcl.evals.embedded import Embedded
from mmcl.mesh import batch_devices
from mmcl.model import Model


class Batch(NamedTuple):
    """Some records of a split.

    Attributes:
        inputs: modality -> arrays of B rows; `index` (B,) is a record's number in the source, which
            keys what is random.
        record_B: numbers of the records in `Embedded`; the last is repeated to fill the batch up.
        real: how many come before it is.
    """

    inputs: dict[str, Any]
    record_B: np.ndarray
    real: int


def batches(
    embedded: Embedded, model: Model, records: Sequence[int] | np.ndarray | None = None
) -> Iterator[Batch]:
    """These records of an embedded split (None: all), in order, in batches of equal size.

    Raises:
        InputError: the data are others than those that were embedded.
    """
    source = experiment.open_source(model.settings, embedded.split)
    used = used_records(embedded, source)
    records = np.asarray(np.arange(len(used)) if records is None else records, np.int64)
    devices = batch_devices(model.mesh)
    size = min(model.batch_size, -(-len(records) // devices) * devices)
    those = _Those(source, used[records])
    starts = range(0, len(records), size)
    for start, batch in zip(starts, eval_batches(those, model.pipeline, batch_size=size)):
        record_R = records[start : start + size]
        for one in batch["rejected"]:
            raise InputError(_changed(embedded, f"{one.id} is no more of use, {one.reason}"))
        real = len(record_R)
        record_B = np.pad(record_R, (0, size - real), mode="edge")
        if list(batch["id"]) != [embedded.ids[record] for record in record_B]:
            raise InputError(_changed(embedded, "its records are others"))
        yield Batch({**numeric(batch), "index": used[record_B].astype(np.int32)}, record_B, real)


def used_records(embedded: Embedded, source: Source) -> np.ndarray:
    """The numbers in the source of the records that were embedded.

    Raises:
        InputError: there are not as many any more.
    """
    used = np.delete(np.arange(len(source)), [one.index for one in embedded.rejected])
    if len(used) != len(embedded.ids):
        raise InputError(_changed(embedded, f"{len(used)} records, no more {len(embedded.ids)}"))
    return used


class _Those:
    """Some records of a source."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.label_names = source.label_names

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._source[int(self._indices[i])]


def _changed(embedded: Embedded, how: str) -> str:
    return f"'{embedded.split}' has changed since it was embedded ({how}): evaluate it again"
