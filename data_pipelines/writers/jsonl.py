"""JSON lines; bytes become files in a folder of the table's name beside it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.portable import ending, holds_bytes

SOURCE = "table"
ENDING = "jsonl"


def write(path: Path, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write portable records into one table; what the source needs to know beside `files`.

    Raises:
        InputError: bytes lie inside a list or mapping.
    """
    paths: dict[str, None] = {}
    with path.open("w", encoding="utf-8") as file:
        for number, record in enumerate(records):
            row = with_files(path, number, record, paths)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"paths": list(paths)} if paths else {}


def with_files(
    table: Path, number: int, record: dict[str, Any], paths: dict[str, None]
) -> dict[str, Any]:
    """The record with bytes written to files, and their paths in their place; `paths` gets the
    entries that are such.

    Raises:
        InputError: bytes lie inside a list or mapping.
    """
    row = dict(record)
    for name, value in record.items():
        if isinstance(value, bytes):
            file = table.with_suffix("") / f"{number:09d}.{name}.{ending(value)}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(value)
            row[name], paths[name] = f"{file.parent.name}/{file.name}", None
        elif holds_bytes(value):
            raise InputError(
                f"'{name}' of record '{record['id']}' holds bytes in a list or mapping: a table has"
                " no place for them; --to arrayrecord or parquet have."
            )
    return row
