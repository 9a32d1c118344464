"""A side file: what another job made of the records, found by their stable ids.

Teacher vectors, scores, cluster ids, better captions. Its columns are kept in memory as compactly
as Arrow or NumPy can; those of .npy files stay on disk.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines import arrow
from data_pipelines.errors import InputError
from data_pipelines.files import listed, opened, opening, raw
from data_pipelines.ids import Ids
from data_pipelines.names import nearest
from data_pipelines.sources import arrays, table

_BATCH = 65_536
Values = Any  # np.ndarray or pa.ChunkedArray, (N, ...)


class Side:
    """Columns by id. Threads and pickles may share it; a pickle reads its files anew.

    Args:
        files: .parquet, .jsonl, .csv, .tsv or .npz, or a list of such, one after the other; or .npy
            files, each of which is one column called as the file is. In a CSV, a column in which
            every value is a number is one of numbers, in which an empty value is None.
        key: the column of the ids.
        columns: those that are wanted; None: all but the key.

    Raises:
        InputError: a file is missing or broken, has not these columns, or has an id twice.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        key: str = "id",
        columns: Sequence[str] | None = None,
        cache: str | os.PathLike | None = None,
    ):
        self._given = (files, key, columns, cache)
        names = listed(files)
        found = _read(names, key, columns, cache)
        ids = found[key]
        self._ids = Ids(_strings(ids, names[0], key))
        double = self._ids.double()
        if double is not None:
            one, other = ((next(_strings(ids[i : i + 1], names[0], key))) for i in double)
            what = f"'{one}' twice" if one == other else f"'{one}' and '{other}' (one hash)"
            raise InputError(f"{names[0]} has the {key} {what}: an id should stand there once")
        self.columns = [name for name in found if name != key] if columns is None else list(columns)
        self._values = {name: _getter(found[name]) for name in self.columns}

    def __len__(self) -> int:
        return len(self._ids)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Side, self._given

    def find(self, id: str) -> int | None:
        """The row of a record; None if it is not there."""
        return self._ids.find(id)

    def value(self, column: str, row: int) -> Any:
        """What a row says: a number, string, list or array."""
        return self._values[column](row)


def _read(
    names: Sequence[str],
    key: str,
    columns: Sequence[str] | None,
    cache: str | os.PathLike | None,
) -> Mapping[str, Values]:
    ends = {os.path.splitext(name)[1].lower() for name in names}
    wanted = None if columns is None else list(dict.fromkeys([key, *columns]))
    if ends <= {".npz", ".npy"}:
        parts = arrays.parts(names, cache)
        _check(list(parts[0]), wanted or [key], names[0])
        found = {
            name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name]
            for name in wanted or parts[0]
        }
        lengths = {name: len(values) for name, values in found.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{names[0]}: columns should be of one length, but are {lengths}")
        return found
    read = _parquet if ends == {".parquet"} else _table
    tables = [read(name, wanted, key) for name in names]
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{names[0]} and others do not go together: {reason}") from error
    return {name: whole[name] for name in whole.column_names}


def _check(there: Sequence[str], wanted: Sequence[str] | None, name: str) -> None:
    for column in wanted or ():
        if column not in there:
            raise InputError(f"{name} has no column '{column}'.{nearest(column, there)}")


def _parquet(name: str, wanted: Sequence[str] | None, key: str) -> pa.Table:
    with opening(name), raw(name) as file, pq.ParquetFile(file) as parquet:
        _check(parquet.schema_arrow.names, wanted or [key], name)
        return parquet.read(columns=wanted)


def _table(name: str, wanted: Sequence[str] | None, key: str) -> pa.Table:
    """A CSV or JSON lines; what is no UTF-8, or no row, is an error of the whole."""
    batches: list[pa.Table] = []
    with opened(name) as file:
        rows = table.rows(file, name)
        while batch := list(itertools.islice(rows, _BATCH)):
            there = list(dict.fromkeys(column for row in batch for column in row))
            _check(there, wanted or [key], name)
            try:
                columns = {c: pa.array([row.get(c) for row in batch]) for c in wanted or there}
            except pa.ArrowException as error:
                raise InputError(f"{name}: values of a column are not alike ({error})") from error
            batches.append(pa.table(columns))
    if not batches:
        raise InputError(f"{name} has no rows")
    try:
        whole = pa.concat_tables(batches, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{name}: values of a column are not alike ({error})") from error
    if table.kind_of(name) in ("csv", "tsv"):
        for i, column in enumerate(whole.column_names):
            if column != key:
                whole = whole.set_column(i, column, _numbers(whole[column]))
    return whole


def _numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings as whole numbers, or else as numbers, if all of them are."""
    said = pc.if_else(pc.equal(values, ""), None, values)
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(said, kind)
        except pa.ArrowInvalid:
            continue
    return values


def _strings(ids: Values, name: str, key: str) -> Iterator[str]:
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        listed_ids = batch.tolist() if isinstance(batch, np.ndarray) else batch.to_pylist()
        for i, id in enumerate(listed_ids):
            if id is None or isinstance(id, float):
                raise InputError(f"{name}: the {key} of row {start + i} is {id}, which is no id")
            yield id.decode() if isinstance(id, bytes) else str(id)


def _getter(values: Values) -> Callable[[int], Any]:
    if isinstance(values, np.ndarray):
        return lambda row: arrays.value(values[row])
    read = arrow.reader(values.type)
    return lambda row: read(values[row])
