"""metrics.jsonl and TensorBoard events of a run."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl import json_lines
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
        json_lines.replace(self._path, map(_plain, kept))
        self._file = Appended(self._path)
        self._events = EventsLog(workdir / "tensorboard", step)

    def write(self, row: dict[str, Any]) -> None:
        """`row` has `step`, numbers by name (of any library), and what else JSON can hold."""
        row = {name: x.item() if hasattr(x, "item") else x for name, x in row.items()}
        self._file.write(json_lines.line(_plain(row)))
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
    return [
        {name: float(x) if x in _NOT_FINITE else x for name, x in row.items()}
        for row in json_lines.read(workdir / "metrics.jsonl")
    ]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON has no word for stands as the string that Python's json writes for it."""
    return {
        name: json.dumps(x) if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in row.items()
    }


def is_number(value: Any) -> bool:
    """Whether a value of a row can be drawn, and calculated with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
