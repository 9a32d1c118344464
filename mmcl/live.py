"""The live line of a training run: step, loss, logit scale, examples a second, time to go."""

import time
from typing import Any

from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column


class LiveLine:
    """A progress bar on a terminal; elsewhere (a log file) a line for each row of metrics."""

    def __init__(self, console: Console, steps: int, step: int):
        self._console = console
        self._steps, self._first, self._began = steps, step, time.monotonic()
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),  # what the numbers leave
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            speed_estimate_period=60,
        )
        self._live = Live(
            console=console,
            get_renderable=lambda: Constrain(self._bar, console.width - 3),  # leaves room for a ^C
            refresh_per_second=10,
        )
        self._numbers = ""
        self._task = self._bar.add_task("", total=steps, completed=step, numbers="compiling ...")

    def __enter__(self) -> "LiveLine":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()

    def step(self, step: int) -> None:
        self._bar.update(self._task, completed=step, numbers=self._numbers)

    def row(self, row: dict[str, Any]) -> None:
        """Show the newest numbers; evaluations stay on the screen above the line."""
        numbers = f"loss {row['train/loss']:.3f}"
        if "train/logit_scale" in row:
            numbers += f"  scale {row['train/logit_scale']:.1f}"
        numbers += f"  {row['train/examples_per_s']:,.0f} ex/s"
        self._numbers = numbers
        self._bar.update(self._task, numbers=numbers)
        if not self._console.is_terminal:
            pace = (time.monotonic() - self._began) / max(row["step"] - self._first, 1)
            eta = f"ETA {pace * (self._steps - row['step']):.0f} s"
            self._console.print(f"step {row['step']}/{self._steps}  {numbers}  {eta}")
        for split, recalls in _recalls(row).items():
            self._console.print(f"  step {row['step']}  {split}: recall@10 {', '.join(recalls)}")


def _recalls(row: dict[str, Any]) -> dict[str, list[str]]:
    """What is worth a line on the way, by split: `text_to_image 0.483`."""
    found: dict[str, list[str]] = {}
    for key, value in row.items():
        match key.split("/"):
            case ["eval", split, task, "recall@10"]:
                found.setdefault(split, []).append(f"{task} {value:.3f}")
    return found
