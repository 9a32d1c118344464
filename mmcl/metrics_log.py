"""metrics.jsonl and TensorBoard events of a run."""

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class MetricsLog:
    """One flat JSON object a step, and the same numbers as TensorBoard events.

    After a kill the file may be ahead of the restored checkpoint: it is cut back to `step`, so that
    each step occurs once.
    """

    def __init__(self, workdir: Path, step: int):
        self._path = workdir / "metrics.jsonl"
        kept = [row for row in read(workdir) if row["step"] <= step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.rename(self._path)
        self._file = self._path.open("a", buffering=1)
        purge = step + 1 if step else None
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=purge)

    def write(self, row: dict[str, Any]) -> None:
        """`row` has `step` and numbers by name."""
        self._file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._file.close()
        self._events.close()


def read(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
