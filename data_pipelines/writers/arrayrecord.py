"""ArrayRecord: one msgpack map a record."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines import records as files

SOURCE = "arrayrecord"
ENDING = "arrayrecord"


def write(path: Path, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write portable records into one file; what the source needs to know beside `files`."""
    files.write(path, records)
    return {}
