"""CSV; bytes become files in a folder of the table's name beside it."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.writers.jsonl import with_files

SOURCE = "table"
ENDING = "csv"


def write(path: Path, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write portable records into one table; what the source needs to know beside `files`.

    Args:
        records: are gone through twice: names of columns come first.

    Raises:
        InputError: an entry is neither text, a number nor bytes.
    """
    columns = list(dict.fromkeys(name for record in records for name in record))
    paths: dict[str, None] = {}
    numbers: dict[str, None] = {}
    texts: set[str] = set()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for number, record in enumerate(records):
            row = with_files(path, number, record, paths)
            for name, value in row.items():
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, str | int | float):
                    raise InputError(
                        f"'{name}' of record '{record['id']}' is a {type(value).__name__}: a cell "
                        "of a CSV is a text or a number; --to jsonl holds it."
                    )
                if isinstance(value, str):
                    texts.add(name)
                else:
                    numbers[name] = None
            writer.writerow(row)
    if mixed := texts & set(numbers):
        raise InputError(f"'{min(mixed)}' is a text here and a number there: --to jsonl holds it.")
    made = {"paths": list(paths), "numbers": list(numbers)}
    return {key: names for key, names in made.items() if names}
