"""How long the devices of each process had nothing to do, because the next batch was not there."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

CLEARLY = 0.1  # a share of its time for which a process waits, to be spoken of


class Stalls:
    """The seconds between the end of a step and the arrival of the next batch, added up.

    The host runs ahead of the devices: that it waits for a batch means nothing while they are still
    busy. A thread notes when each step ends.
    """

    def __init__(self) -> None:
        self._watch = ThreadPoolExecutor(1, "ends of steps")
        self._ends: list[Future[float]] = []  # of the step before each wait
        self._waits: list[tuple[float, float, Future[float] | None]] = []

    def watched(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time until each comes is counted."""
        waiting = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(waiting)
            except StopIteration:
                return
            before = self._ends.pop() if self._ends else None
            self._waits.append((asked, time.perf_counter(), before))
            yield batch

    def stepped(self, result: jax.Array) -> Future[float]:
        """A step was started, and this will come of it; gives when it ends."""
        end = self._watch.submit(_end, result)
        self.ends(end)
        return end

    def ends(self, end: Future[float]) -> None:
        """A step was started, of which another watch notes the end."""
        self._ends = [end]

    def seconds(self) -> float:
        """How long the devices stood still since the last call; waits for the steps before."""
        waits, self._waits = self._waits, []
        return sum(
            stall(asked, came, None if before is None else before.result())
            for asked, came, before in waits
        )

    def close(self) -> None:
        self._watch.shutdown(wait=False)


def stall(asked: float, came: float, free: float | None) -> float:
    """For how long of a wait for a batch the devices were idle.

    Args:
        asked, came: when the host asked for the batch, and when it had it.
        free: when the step before ended; None: there was none.
    """
    return max(0.0, came - max(asked, asked if free is None else free))


def _end(result: jax.Array) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()


def gathered(*numbers: float) -> np.ndarray:
    """Numbers of each process -> (processes, numbers) float64; all of them must ask."""
    mine = np.array(numbers)
    if jax.process_count() == 1:
        return mine[None]
    bits = multihost_utils.process_allgather(mine.view(np.int32))  # jax would narrow float64
    return np.asarray(bits).view(np.float64)


def by_process(wait_P: Sequence[float], rate_P: Sequence[float]) -> dict[str, float]:
    """What a row of metrics is told of all processes.

    Args:
        wait_P: the share of its time for which the devices of each waited for their next batch.
        rate_P: its own examples per second.

    Returns:
        `data_wait`, the largest share, since a step waits for the slowest; of several processes
        also the median and least, and the slowest, median and fastest rate.
    """
    row = {"data_wait": float(max(wait_P))}
    if len(wait_P) > 1:
        row |= {
            "data_wait/median": float(np.median(wait_P)),
            "data_wait/least": float(min(wait_P)),
            "examples_per_s/slowest": float(min(rate_P)),
            "examples_per_s/median": float(np.median(rate_P)),
            "examples_per_s/fastest": float(max(rate_P)),
        }
    return row


def straggler(wait_P: Sequence[float]) -> tuple[int | None, str]:
    """The process that the others wait for, as its data comes late, and a line that says so; None
    where there is not one.

    Steps are in lockstep: the devices of the others are then busy with waiting for its part of a
    sum, so that their own data is there in time.
    """
    late = int(np.argmax(wait_P))
    others = [wait for process, wait in enumerate(wait_P) if process != late]
    if not others or wait_P[late] < CLEARLY or max(others) > wait_P[late] / 2:
        return None, ""
    return late, f"Process {late} waits {wait_P[late]:.0%} of its time for data, the others for it."
