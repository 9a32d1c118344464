"""evals.json: what the last evaluation of a run said, with the intervals of its figures."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcl.evals.figure import Figures, intervals, numbers

FILE = "evals.json"


def told(figures: Figures) -> dict[str, Any]:
    """As JSON: each figure's number under its name, and under `intervals` [low, high] of those that
    have one (95 %, see `figure.intervals`).
    """
    spread = {name: list(ends) for name, ends in intervals(figures).items()}
    return {**numbers(figures), "intervals": spread}


def write(folder: Path, step: int, figures: Figures) -> None:
    """Into a workdir, as a whole or not at all."""
    temporary = folder / f"{FILE}.tmp"
    temporary.write_text(json.dumps({"step": step, **told(figures)}, indent=1), encoding="utf-8")
    os.replace(temporary, folder / FILE)


def spread(folder: Path) -> Mapping[str, list[float]]:
    """name -> [low, high], of a workdir; empty where there is no such file."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))["intervals"]
        return {name: [float(low), float(high)] for name, (low, high) in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
