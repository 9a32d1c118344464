"""A progress bar on stderr for what turns out to be slow."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PATIENCE = 2.0  # seconds without a bar


class Bar:
    """Shows how much of `total` is done once it has taken two seconds; threads may share it.

    with Bar("indexing", total=len(files)) as bar:
        for file in files:
            ...
            bar.advance(1)
    """

    def __init__(self, what: str, total: float):
        self._what, self._total, self._done = what, total, 0.0
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._shown: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> "Bar":
        return self

    def advance(self, amount: float) -> None:
        """So much more is done."""
        with self._lock:
            self._done += amount
            if self._shown is None and time.monotonic() - self._begun > PATIENCE:
                columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
                progress = Progress(*columns, console=Console(stderr=True))
                progress.start()
                self._shown = progress, progress.add_task(self._what, total=self._total)
            if self._shown is not None:
                progress, task = self._shown
                progress.update(task, completed=self._done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown[0].stop()
