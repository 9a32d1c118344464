"""metrics.jsonl and TensorBoard events of a run."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.appended import Appended
from mmcl.events_log import EventsLog
from mmcl.wandb_log import WandbLog

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class MetricsLog:
    """One flat JSON object a step, and the same numbers as TensorBoard events.

    After a kill the file may be ahead of the restored checkpoint: it is cut back to `step`, so that
    each step occurs once. JSON has no NaN and no infinity: those are the strings "NaN", "Infinity"
    and "-Infinity", which `read` turns back into numbers.

    Args:
        also: others who are told every row, and closed with this.
    """

    def __init__(self, workdir: Path, step: int, also: Sequence[WandbLog] = ()):
        self._also = also
        self._path = workdir / "metrics.jsonl"
        kept = [row for row in read(workdir) if row["step"] <= step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(_line(row) for row in kept))
        temporary.replace(self._path)
        self._file = Appended(self._path)
        self._events = EventsLog(workdir / "tensorboard", step)

    def write(self, row: dict[str, Any]) -> None:
        """`row` has `step`, numbers by name (of any library), and what else JSON can hold."""
        row = {name: x.item() if hasattr(x, "item") else x for name, x in row.items()}
        self._file.write(_line(row))
        numbers = {
            name: value
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._events.write(row["step"], numbers)
        for one in self._also:
            one.write(row)

    def close(self) -> None:
        self._file.close()
        self._events.close()
        for one in self._also:
            one.close()


def read(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        rows.append({name: float(x) if x in _NOT_FINITE else x for name, x in row.items()})
    return rows


def _line(row: dict[str, Any]) -> str:
    """What JSON has no word for stands as the string that Python writes for it."""
    finite = {
        name: json.dumps(x) if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in row.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
