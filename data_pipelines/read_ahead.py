"""Threads that make batches before they are asked for, each a part of one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain

from data_pipelines.faults import bombs_are_errors


class InParts(NamedTuple):
    """Batches that several threads make together.

    Attributes:
        parts: of every batch.
        part: (step, number of the part) -> the part.
        joined: the parts of one batch, in order -> the batch.
    """

    parts: int
    part: Callable[[int, int], Any]
    joined: Callable[[Sequence[Any]], dict[str, Any]]


def read_ahead(batches: InParts, steps: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
    """The batch of every step, in order.

    Ahead of what is asked for lie the parts of two batches, or two a thread where that is more: a
    batch of large pictures may be large, and many threads must not each hold one.

    What a part raises is raised here when its step's turn comes.
    """
    bombs_are_errors()

    def one(i: int) -> Any:
        step, k = divmod(i, batches.parts)
        return batches.part(steps[step], k)

    ahead = 2 * max(batches.parts, threads)
    parts = grain.MapDataset.range(len(steps) * batches.parts).map(one)
    made = parts.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=ahead))
    return iter(made.batch(batches.parts, batch_fn=batches.joined))
