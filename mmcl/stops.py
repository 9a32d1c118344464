"""Signals that ask a run to stop: Ctrl-C, and SIGTERM, by which machines are taken away."""

import signal
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

from mmcl.processes import any_says


class Halted(Exception):
    """Something long was left in the middle, for the run shall stop."""


class Stops:
    """While it is open, the first Ctrl-C or SIGTERM is only noted, until it is asked for; Ctrl-C
    after it stops at once.

    In several processes jax listens to SIGTERM: whichever gets it, they agree on where to stop.

    Args:
        tell: who is told that a signal came.

    Attributes:
        by: the signal that came; None as long as there was none.
    """

    def __init__(self, tell: Callable[[str], None]):
        self.by: signal.Signals | None = None
        self._tell, self._asked = tell, 0
        self._alone = jax.process_count() == 1

    def __enter__(self) -> "Stops":
        listening = (signal.SIGINT, signal.SIGTERM) if self._alone else (signal.SIGINT,)
        self._before = {one: signal.signal(one, self._note) for one in listening}
        return self

    def __exit__(self, *_: Any) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def now(self, *, ctrl_c: bool = True) -> bool:
        """Whether to stop here; all processes must ask at the same points, and hear the same.

        Args:
            ctrl_c: also for Ctrl-C; of several processes those wait for each other's answer.
        """
        if self._alone:
            return self.by is not None
        self._asked += 1
        if multihost_utils.reached_preemption_sync_point(self._asked):
            self.by = signal.SIGTERM
        elif ctrl_c and any_says(self.by is not None):
            self.by = signal.SIGINT
        else:
            return False
        return True

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.by is not None:
            raise KeyboardInterrupt
        if self.by is None:
            self.by = signal.Signals(number)
            if number == signal.SIGINT:
                again = "Ctrl-C again stops at once, without saving."
                self._tell(f"Stopping after this step; {again}")
            else:
                self._tell("SIGTERM: stopping after this step.")
