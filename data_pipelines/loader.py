"""Batches: a global position says which record, and each process loads its slice of the batch."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault, Reject
from data_pipelines.pipeline import Pipeline, Source, read, stack
from data_pipelines.read_ahead import InParts, read_ahead
from data_pipelines.sources.mixture import Source as Mixture
from data_pipelines.worker_processes import in_processes

ATTEMPTS = 32  # records tried for one position
PART = 32  # examples that one thread makes at a time


class AnyOrder(Protocol):
    """Which record stands at a global position: `Order` or `MixedOrder`."""

    @property
    def seed(self) -> int: ...

    @property
    def stage(self) -> int: ...

    def __call__(self, position: int) -> tuple[int, int]: ...

    def instead(self, position: int, attempt: int) -> int: ...

    def epochs(self, position: int) -> dict[str, float]: ...


def train_batches(
    source: Source,
    pipeline: Pipeline,
    order: AnyOrder,
    *,
    batch_size: int,
    start: int,
    stop: int,
    places: Sequence[int] | None = None,
    threads: int = 2,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """This process's part of the batches of steps `start` to `stop`.

    Global position `step · batch_size + k` is example k of that step's batch. Every random choice
    is keyed by (seed, stage, epoch, record), so the number of threads, workers or processes changes
    no example.

    Where a record cannot be used another one of its source stands in its place, which is a function
    of seed, stage and position alone; `rejected` in the batch lists a `Reject` for each.

    Args:
        places: the examples of a batch that this process needs, in order; None: all.
        threads: that load, in this process or in each worker.
        workers: processes that load; 0: none, this process does.

    Raises:
        InputError: 32 records in turn could not be used; or a worker was killed twice in a row.
    """
    here = range(batch_size) if places is None else places
    training = Training(source, pipeline, order, batch_size, here)
    batches = InParts(-(-len(here) // PART), training.part, training.joined)
    if workers:
        return in_processes(batches, start, stop, workers=workers, threads=threads)
    return read_ahead(batches, range(start, stop), threads)


def eval_batches(
    source: Source, pipeline: Pipeline, *, batch_size: int, threads: int = 2
) -> Iterator[dict[str, Any]]:
    """Every record once, in order, untouched by chance.

    The last batch is filled up by repeating its last record, so that shapes stay static: the
    caller counts the records. Another record of the batch stands in the place of one that cannot be
    used, and `rejected` lists a `Reject` with its `index`; a batch of which no record can be used
    has nothing else in it.
    """
    evaluation = Evaluation(source, pipeline, batch_size)
    batches = InParts(-(-batch_size // PART), evaluation.part, evaluation.joined)
    return read_ahead(batches, range(-(-len(source) // batch_size)), threads)


@dataclasses.dataclass(frozen=True)
class Training:
    """Step -> this process's part of its batch: pure functions, so any process can call them."""

    source: Source
    pipeline: Pipeline
    order: AnyOrder
    batch_size: int
    places: Sequence[int]  # of the examples in the batch

    def part(self, step: int, k: int) -> list[tuple[dict[str, Any], Reject | None]]:
        """The k-th part of that."""
        first = step * self.batch_size
        return [self.example(first + place) for place in self.places[k * PART : (k + 1) * PART]]

    def joined(self, parts: Sequence[list[tuple[dict[str, Any], Reject | None]]]) -> dict[str, Any]:
        """All of them as one batch."""
        found = list(itertools.chain.from_iterable(parts))
        rejected = [reject for _, reject in found if reject is not None]
        return {**stack([example for example, _ in found]), "rejected": rejected}

    def example(self, position: int) -> tuple[dict[str, Any], Reject | None]:
        """What stands at a position, and the record that ought to but cannot be used."""
        epoch, record = self.order(position)
        reject: Reject | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                record = self.order.instead(position, attempt)
            seed = (self.order.seed, self.order.stage, epoch, record)
            example = load(self.source, self.pipeline, record, seed=seed, train=True)
            if not isinstance(example, Reject):
                return example, reject
            last = dataclasses.replace(example, epoch=epoch, position=position)
            reject = reject or last
        raise InputError(
            f"{ATTEMPTS} records in turn could not be used; the last: record "
            f"{last.id or last.index}, {last.kind}: {last.reason}"
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Number of a batch -> the batch."""

    source: Source
    pipeline: Pipeline
    batch_size: int

    def part(self, number: int, k: int) -> list[dict[str, Any] | Reject]:
        """The k-th part of a batch; of the last batch, as much as there is."""
        first = number * self.batch_size
        places = range(first, min(first + self.batch_size, len(self.source)))
        return [
            load(self.source, self.pipeline, record, seed=(0,), train=False)
            for record in places[k * PART : (k + 1) * PART]
        ]

    def joined(self, parts: Sequence[list[dict[str, Any] | Reject]]) -> dict[str, Any]:
        """All parts of a batch, filled up."""
        loaded = list(itertools.chain.from_iterable(parts))
        loaded += loaded[-1:] * (self.batch_size - len(loaded))
        good = next((example for example in loaded if not isinstance(example, Reject)), None)
        rejected = {one.index: one for one in loaded if isinstance(one, Reject)}
        made: dict[str, Any] = {"rejected": list(rejected.values())}
        if good is not None:
            made |= stack([good if isinstance(one, Reject) else one for one in loaded])
        return made


def load(
    source: Source, pipeline: Pipeline, record: int, *, seed: Sequence[int], train: bool
) -> dict[str, Any] | Reject:
    """One record as an example, or why it cannot be one."""
    name = None
    try:
        raw = read(source, record)
        name = raw.get("id")
        return pipeline(raw, record, seed=seed, train=train)
    except Fault as fault:
        of = source.name_of(record) if isinstance(source, Mixture) else None
        return Reject(name, record, 0, record, fault.kind, fault.reason, of)


def numeric(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without what is only there to be told or shown: `id`, `rejected`, and every
    modality's `raw`.
    """
    return {
        key: numeric(value) if isinstance(value, Mapping) else value
        for key, value in batch.items()
        if key not in ("id", "raw", "rejected")
    }
