"""Parquet, as Hugging Face's datasets are stored: a column is an entry of a record.

Parquet is read a row group at a time, so a shuffled order is quick where row groups are small (the
datasets library writes 100 rows of pictures) or fit into the memory given to them; where neither is
so, convert the set to ArrayRecord.
"""

import copy
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines import arrow
from data_pipelines.errors import InputError
from data_pipelines.fields import Fields
from data_pipelines.files import (
    LARGEST,
    THREADS,
    contents,
    folder_of,
    is_remote,
    listed,
    not_too_large,
    opening,
    raw,
    reading,
)
from data_pipelines.memory import must_hold
from data_pipelines.names import known
from data_pipelines.progress import Bar
from data_pipelines.scan import check_id
from data_pipelines.shards import Shards

Column = Callable[[int], Any]  # row -> value


class Source:
    """Records of Parquet files: `source[i]` is read when it is asked for. Threads and pickles may
    share it.

    Bytes and strings stay what they are, lists of numbers become arrays, and a struct of `bytes`
    and `path` becomes the bytes, or else those of the file of that path.

    Args:
        files: path, brace range, glob or URL, a list of these, or one for each split.
        split: one of those of `files`.
        fields: entry of a record -> column, `meta.caption` looking into a struct. None: every
            column under its own name.
        id: the column that is the stable identity. None: `id` if there is one, else the name of the
            file and the row.
        paths: entries that are paths of files, which are then read.
        folder: where such paths begin; None: where the Parquet file lies.
        label_names: label -> names; those that the files tell (ClassLabel) need not be said.
        limit: keep the first so many records.
        largest: bytes of the largest value that is taken.
        memory: bytes of row groups that are kept for what is read next, for all threads together;
            the last one is kept in any case.

    Raises:
        InputError: a file is missing or no Parquet, or has not these columns.
    """

    def __init__(
        self,
        *,
        files: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        split: str | None = None,
        fields: Mapping[str, str] | None = None,
        id: str | None = None,
        paths: Sequence[str] = (),
        folder: str | None = None,
        label_names: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        largest: int = LARGEST,
        memory: int = 256_000_000,
    ):
        names = listed(files, split)
        self._ends, schemas = _footers(names)
        self._shards = Shards(names, [int(ends[-1]) for ends in self._ends], limit)
        there = schemas[0].names
        if id is None and "id" in there:
            id = "id"
        if id is None:
            self._shards.check_names()
        if fields is None:
            fields = {name: name for name in there if name != "id"}
        told = _class_labels(schemas[0], fields)
        self.label_names = {k: list(v) for k, v in {**told, **(label_names or {})}.items()}
        self._fields = Fields(fields, id, self.label_names)
        self._there = there
        self._columns = tuple(self._fields.heads(there))
        for name, schema in zip(names, schemas):
            lacking = set(self._columns) - set(schema.names)
            if lacking:
                raise InputError(f"{name} has no column {sorted(lacking)}, which {names[0]} has")
        known(paths, fields, "paths")
        self._paths, self._folder = list(paths), folder
        self._largest = largest
        self._groups = Groups(memory)
        check_id(self, id)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `too_large`, `missing_file`, `missing_field`, or the file has gone or is damaged
                there.
        """
        file, row = self._shards(index)
        id = self._shards.name(file, row)
        name, ends = self._shards.paths[file], self._ends[file]
        group = int(np.searchsorted(ends, row, side="right")) - 1
        folder = folder_of(name) if self._folder is None else self._folder
        read = functools.partial(_columns, name, group, self._columns, folder, self._largest)
        columns = self._groups((name, group, self._columns), read) if self._columns else {}
        raw = {column: value(row - int(ends[group])) for column, value in columns.items()}
        record = self._fields.record(raw, id)
        for entry in self._paths:
            if entry in record:
                record[entry] = contents(record[entry], folder, self._largest)
        for entry, value in record.items():
            if isinstance(value, bytes):
                not_too_large(value, self._largest, f"{entry} of {id}")
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone: no more is read than they need."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        view._columns = tuple(view._fields.heads(self._there))
        return view


class Groups:
    """The row groups that were used last, for all threads: one that is being read is waited for."""

    def __init__(self, memory: int):
        self._memory = memory
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, Future[tuple[dict[str, Column], int]]] = OrderedDict()

    def __call__(
        self, key: Any, read: Callable[[], tuple[dict[str, Column], int]]
    ) -> dict[str, Column]:
        """What `read` gives, the second time without reading; its exceptions are not kept."""
        with self._lock:
            found = self._kept.get(key)
            mine = found is None
            if found is None:
                found = self._kept[key] = Future()
            self._kept.move_to_end(key)
        if mine:
            try:
                found.set_result(read())
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                found.set_exception(error)
            else:
                self._shrink()
        return found.result()[0]

    def _shrink(self) -> None:
        with self._lock:
            ready = {key: kept for key, kept in self._kept.items() if kept.done()}
            taken = sum(kept.result()[1] for kept in ready.values())
            for key in list(ready)[:-1]:
                if taken <= self._memory:
                    break
                taken -= self._kept.pop(key).result()[1]

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Groups, (self._memory,)


def _footers(names: Sequence[str]) -> tuple[list[np.ndarray], list[pa.Schema]]:
    """Of each file where its row groups begin, and the last ends; and its schema.

    Raises:
        InputError: a file is missing, or is no Parquet.
    """

    def footer(name: str) -> tuple[np.ndarray, pa.Schema]:
        with opening(name), raw(name) as file, pq.ParquetFile(file) as parquet:
            about = parquet.metadata
            groups = [about.row_group(i) for i in range(about.num_row_groups)]
            rows = [group.num_rows for group in groups]
            largest = max((group.total_byte_size for group in groups), default=0)
            must_hold(largest, f"a row group of {name}")
            bar.advance(1)
            return np.cumsum([0, *rows]), parquet.schema_arrow

    with Bar(f"opening {len(names)} files", len(names)) as bar, ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(footer, names))
    return [ends for ends, _ in found], [schema for _, schema in found]


def _columns(
    name: str, group: int, columns: Sequence[str], folder: str, largest: int
) -> tuple[dict[str, Column], int]:
    """Columns of a row group, and how many bytes they take.

    Raises:
        Fault: the file has gone, or is damaged there.
    """

    def file(path: str) -> Any:
        return contents(path, folder, largest)

    with reading(name, "vanished_shard"):
        if is_remote(name):  # Arrow asks for whole ranges, so nothing has to be read ahead
            with raw(name, cache_type="none") as remote, pq.ParquetFile(remote) as parquet:
                table = parquet.read_row_group(group, columns=list(columns))
        else:
            with pq.ParquetFile(name) as parquet:
                table = parquet.read_row_group(group, columns=list(columns))
    return {column: _column(table[column], file) for column in columns}, table.nbytes


def _column(values: pa.ChunkedArray, file: Callable[[str], Any]) -> Column:
    read = arrow.reader(values.type, file)
    return lambda row: read(values[row])


def _class_labels(schema: pa.Schema, fields: Mapping[str, str]) -> dict[str, list[str]]:
    """Label -> names, as the datasets library writes them into a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    found = ((entry, features.get(column)) for entry, column in fields.items())
    return {
        entry: feature["names"]
        for entry, feature in found
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature["names"]
    }
