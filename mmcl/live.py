"""The live line of a training run: step, loss, logit scale, examples a second, time to go."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class LiveLine:
    """A progress bar on a terminal; elsewhere (a log file) a line for each row of metrics."""

    def __init__(self, console: Console, steps: int, step: int):
        self._console = console
        self._steps, self._first, self._began = steps, step, time.monotonic()
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=60,
        )
        self._task = self._bar.add_task(
            "train", total=steps, completed=step, numbers="compiling ..."
        )

    def __enter__(self) -> "LiveLine":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def step(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def row(self, row: dict[str, Any]) -> None:
        """Show the newest numbers; evaluations stay on the screen above the line."""
        numbers = f"loss {row['train/loss']:.3f}"
        if "train/logit_scale" in row:
            numbers += f"  scale {row['train/logit_scale']:.1f}"
        numbers += f"  {row['train/examples_per_s']:.0f}/s"
        self._bar.update(self._task, numbers=numbers)
        if not self._console.is_terminal:
            pace = (time.monotonic() - self._began) / max(row["step"] - self._first, 1)
            eta = f"ETA {pace * (self._steps - row['step']):.0f} s"
            self._console.print(f"step {row['step']}/{self._steps}  {numbers}  {eta}")
        recalls = {
            k: v for k, v in row.items() if k.startswith("eval/") and k.endswith("recall@10")
        }
        if recalls:
            text = "  ".join(f"{k[5:-10]} {v:.3f}" for k, v in recalls.items())
            self._console.print(f"  step {row['step']}: recall@10  {text}")
