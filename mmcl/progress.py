"""How a run gets on: its clock, its pace, what its devices waited for; told in rows of metrics."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mmcl.live import LiveLine
from mmcl.metrics_log import MetricsLog
from mmcl.stalls import Stalls, by_process, gathered, straggler


class Progress:
    """A lap is the time since the last row of metrics.

    Args:
        log: where rows are written; None: another process does.
        tell: where a line goes, once, about a process that the others wait for.
        clock: of a run that goes on, what `clock` gave when it was saved: seconds at work and
            examples seen.
    """

    def __init__(
        self,
        log: MetricsLog | None,
        live: LiveLine,
        stalls: Stalls,
        tell: Callable[[str], Any],
        clock: Mapping[str, Any],
    ):
        self._log, self._live, self._stalls, self._tell = log, live, stalls, tell
        self._clock = dict(clock)
        self._told_of: set[int | None] = {None}

    def begin(self, step: int, batch_size: int) -> None:
        """A lap of steps of so many examples each begins after this step."""
        self._step, self._batch_size, self._began = step, batch_size, time.perf_counter()

    def row(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, Any]:
        """The metrics of a step and the pace of the lap; all processes must ask."""
        numbers = jax.device_get(metrics)
        row = {f"train/{name}": float(x) for name, x in numbers.items() if name != "bad"}
        seconds = self._seconds()
        rate = self._batch_size * (step - self._step) / seconds
        stalled = self._stalls.seconds() / seconds
        wait_P, rate_P = gathered(stalled, rate / jax.process_count()).T
        late, line = straggler(wait_P)
        if late not in self._told_of:
            self._told_of.add(late)
            self._tell(line)
        pace = {"examples_per_s": rate, **by_process(wait_P, rate_P)}
        return row | {f"train/{name}": value for name, value in pace.items()}

    def record(self, step: int, row: Mapping[str, Any], final: bool) -> None:
        """Write a row and show it; the next lap begins.

        Args:
            final: whether it is the last of the run.
        """
        self._clock = self.clock(step)
        full = {"step": step, "time": self._clock["seconds"], **row}
        if self._log is not None:
            self._log.write(full | ({"final": True} if final else {}))
        self._live.row(full)
        self.begin(step, self._batch_size)

    def clock(self, step: int) -> dict[str, Any]:
        """Seconds at work and examples seen, up to now."""
        return {
            "seconds": self._clock["seconds"] + self._seconds(),
            "examples": self._clock["examples"] + self._batch_size * (step - self._step),
        }

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
