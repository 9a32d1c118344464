"""Batches: a global position says which record, and each process loads its slice of the batch."""

from collections.abc import Iterator, Mapping
from typing import Any

import grain

from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline, Source, stack


def train_batches(
    source: Source,
    pipeline: Pipeline,
    order: Order,
    *,
    batch_size: int,
    start: int,
    stop: int,
    process: int = 0,
    processes: int = 1,
    threads: int = 2,
) -> Iterator[dict[str, Any]]:
    """This process's slice of the batches of steps `start` to `stop`.

    Global position `step · batch_size + k` is example k of that step's batch; process p of n holds
    the p-th of n equal contiguous slices. Every random choice is keyed by (seed, stage, epoch,
    record), so neither the number of threads nor of processes changes an example.
    """
    if batch_size % processes:
        raise ValueError(f"a batch of {batch_size} cannot be cut in {processes} equal slices")
    local = batch_size // processes

    def load(i: int) -> dict[str, Any]:
        step, k = divmod(i, local)
        epoch, record = order(step * batch_size + process * local + k)
        seed = (order.seed, order.stage, epoch, record)
        return pipeline(source[record], record, seed=seed, train=True)

    dataset = grain.MapDataset.range(start * local, stop * local).map(load)
    batches = dataset.batch(local, batch_fn=stack)
    return iter(
        batches.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=4 * threads))
    )


def eval_batches(
    source: Source, pipeline: Pipeline, *, batch_size: int, threads: int = 2
) -> Iterator[dict[str, Any]]:
    """Every record once, in order, untouched by chance.

    The last batch is filled up by repeating its last record, so that shapes stay static: the
    caller counts the records.
    """
    padded = -(-len(source) // batch_size) * batch_size

    def load(i: int) -> dict[str, Any]:
        record = min(i, len(source) - 1)
        return pipeline(source[record], record, seed=(0,), train=False)

    dataset = grain.MapDataset.range(padded).map(load).batch(batch_size, batch_fn=stack)
    return iter(
        dataset.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=2 * threads))
    )


def numeric(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without what is only there to be shown: `id`, and every modality's `raw`."""
    return {
        key: numeric(value) if isinstance(value, Mapping) else value
        for key, value in batch.items()
        if key not in ("id", "raw")
    }
