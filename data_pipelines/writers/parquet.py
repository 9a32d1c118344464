"""Parquet, as Hugging Face lays it out: bytes are structs of `bytes` and `path`."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

SOURCE = "parquet"
ENDING = "parquet"
GROUP = 100  # records that are read and kept together


def write(path: Path, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write portable records into one file; what the source needs to know beside `files`.

    Args:
        records: are gone through twice: types come first.
    """
    light = [{name: _light(value) for name, value in record.items()} for record in records]
    names = dict.fromkeys(name for one in light for name in one)
    table = pa.Table.from_pylist([{name: one.get(name) for name in names} for one in light])
    files = {"bytes": pa.binary(), "path": pa.string()}
    columns = [
        (field.name, pa.struct(files) if pa.types.is_binary(field.type) else field.type)
        for field in table.schema
    ]
    schema = pa.schema(columns)
    whole = {name for name, kind in columns if kind == pa.struct(files)}
    with parquet.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        for group in _groups(records):
            rows = [
                {k: {"bytes": v, "path": None} if k in whole else v for k, v in record.items()}
                for record in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return {}


def _light(value: Any) -> Any:
    """Of the same type, without what is long."""
    return b"" if isinstance(value, bytes) else value


def _groups(records: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    some = iter(records)
    while group := list(itertools.islice(some, GROUP)):
        yield group
