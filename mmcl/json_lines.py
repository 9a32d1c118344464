"""Files of JSON objects, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, none where there is no file; a last line that a kill cut short is
    left out.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def replace(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of these objects in the place of the one there is, as a whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(map(line, rows)), encoding="utf-8")
    temporary.replace(path)


def line(row: Mapping[str, Any]) -> str:
    """What JSON has no word for stands as a text, as Python writes it."""
    return json.dumps(row, ensure_ascii=False, default=str, allow_nan=False) + "\n"
