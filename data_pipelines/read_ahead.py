"""Threads that make batches before they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain

from data_pipelines.faults import bombs_are_errors


def read_ahead(
    make: Callable[[int], dict[str, Any]], steps: Sequence[int], threads: int
) -> Iterator[dict[str, Any]]:
    """`make(step)` for every step, in order; up to four times as many as threads lie ready.

    What `make` raises is raised here when its step's turn comes.
    """
    bombs_are_errors()
    dataset = grain.MapDataset.range(len(steps)).map(lambda i: make(steps[i]))
    return iter(
        dataset.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=4 * threads))
    )
