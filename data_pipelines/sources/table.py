"""JSON lines, CSV and TSV: a row is a record, and files that it names are read from a folder.

A table is read through once; where its rows begin is then kept in the cache (see `index`), so that
a table of any length takes no memory. A CSV begins with the names of its columns.
"""

import contextlib
import copy
import csv
import functools
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fields import Fields
from data_pipelines.files import LARGEST, contents, folder_of, listed, read_ranges
from data_pipelines.fits import short
from data_pipelines.index import Rows, indexes
from data_pipelines.names import known
from data_pipelines.scan import check_id
from data_pipelines.shards import Shards

_KINDS = {"jsonl": "", "ndjson": "", "csv": ",", "tsv": "\t"}  # what parts the cells
_MARK = b"\xef\xbb\xbf"  # with which some programs begin UTF-8
csv.field_size_limit(sys.maxsize)  # else a cell of over 128 KiB would be an error


class Source:
    """Records of tables: `source[i]` is read when it is asked for. Threads and pickles may share
    it.

    Args:
        files: path, brace range, glob or URL of .jsonl, .csv or .tsv, a list of these, or one for
            each split.
        split: one of those of `files`.
        fields: entry of a record -> column or key, `meta.caption` looking into an object. None:
            every one under its own name.
        id: the column or key that is the stable identity. None: `id` if there is one, else the name
            of the file and the row.
        paths: entries that are paths of files, which are then read; an empty one is none.
        folder: where such paths begin; None: where the table lies.
        numbers: entries of a CSV that are numbers; an empty one is None. What else is in a CSV is a
            string.
        quotes: whether cells of a CSV may stand in quotation marks, which then may hold separators
            and line ends. False: a quotation mark is a letter like any other.
        label_names: label -> names. A label that is a name becomes its number.
        limit: keep the first so many records.
        largest: bytes of the largest row, and of the largest file, that is read.
        cache: where indexes are kept; None: $MMCL_CACHE or ~/.cache/mmcl.

    Raises:
        InputError: a file is missing or no such table, or has not these columns.
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
        numbers: Sequence[str] = (),
        quotes: bool = True,
        label_names: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        largest: int = LARGEST,
        cache: str | os.PathLike | None = None,
    ):
        names = listed(files, split)
        if len({bool(_KINDS[kind_of(name)]) for name in names}) > 1:
            raise InputError("JSON lines and CSV do not go together: make them two sources.")
        kind = "table-1" if quotes else "table-1-unquoted"
        self._indexes = indexes(names, kind, functools.partial(_places, quotes=quotes), cache)
        self._shards = Shards(names, [index.rows for index in self._indexes], limit)
        self._paths, self._folder, self._quotes = list(paths), folder, quotes
        self._numbers, self._largest = list(numbers), largest
        there = self._indexes[0].about["columns"]
        if id is None and "id" in (self._first() if there is None else there):
            id = "id"
        if id is None:
            self._shards.check_names()
        self.label_names = {label: list(those) for label, those in (label_names or {}).items()}
        if fields is None and there is not None:
            fields = {name: name for name in there if name != "id"}
        self._fields = Fields(fields, id, self.label_names)
        if there is not None:
            for index in self._indexes:
                try:
                    self._fields.heads(index.about["columns"])
                except InputError as error:
                    raise InputError(f"{index.path}: {error}") from None
        if fields is not None:
            known(paths, fields, "paths")
            known(numbers, fields, "numbers")
        check_id(self, id)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `bad_row`, `too_large`, `missing_file`, `missing_field`, or the table has gone.
        """
        file, row = self._shards(index)
        name, id = self._shards.paths[file], self._shards.name(file, row)
        raw = self._row(file, row)
        for entry in self._numbers:
            field = (self._fields.fields or {}).get(entry, entry)
            if isinstance(raw.get(field), str):
                raw[field] = _number(field, raw[field], id)
        record = self._fields.record(raw, id)
        folder = folder_of(name) if self._folder is None else self._folder
        for entry in self._paths:
            if entry in record:
                record[entry] = contents(record[entry], folder, self._largest)
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone: no more is read than they need."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        return view

    def _first(self) -> dict[str, Any]:
        """The first row that is one, among a few."""
        for index in range(min(len(self), 100)):
            with contextlib.suppress(Fault):
                return self._row(*self._shards(index))
        return {}

    def _row(self, file: int, row: int) -> dict[str, Any]:
        name, id = self._shards.paths[file], self._shards.name(file, row)
        columns = self._indexes[file].about["columns"]
        start, size = self._indexes[file][row]
        if size > self._largest:
            raise Fault("too_large", f"{id} has more than {self._largest:,} bytes")
        [line] = read_ranges(name, [(start, size)])
        try:
            if columns is None:
                return _object(line)
            [cells] = _csv(io.BytesIO(line), kind_of(name), self._quotes)
            return _cells(cells, columns)
        except (ValueError, csv.Error) as error:
            raise Fault("bad_row", f"{id}: {' '.join(str(error).split())}") from error


def kind_of(name: str) -> str:
    """`jsonl`, `ndjson`, `csv` or `tsv`, by the end of a name.

    Raises:
        InputError: it ends otherwise.
    """
    end = name.rpartition(".")[2].lower()
    if end in ("gz", "bz2", "xz", "zst"):
        raise InputError(f"{name} is compressed, so no row in it can be found: unpack it")
    if end not in _KINDS:
        raise InputError(f"{name} is no table: its name should end in .{', .'.join(_KINDS)}")
    return end


def rows(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """All rows of a table from first to last, read once: for tables that are kept in memory.

    Raises:
        InputError: a row is none.
    """
    kind, number = kind_of(name), 0
    try:
        if not _KINDS[kind]:
            for line in file:
                number += 1
                if line.strip():
                    yield _object(line)
            return
        cells = _csv(_unmarked(file), kind)
        columns = next(cells, [])
        for row in cells:
            number += 1
            if row:
                yield _cells(row, columns)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name}, row {number}: {' '.join(str(error).split())}") from error


def _object(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a row should be an object, as {...}")
    return found


def _cells(cells: list[str], columns: list[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise ValueError(f"there are {len(cells)} cells for {len(columns)} columns")
    return dict(zip(columns, cells))


def _number(field: str, value: str, id: str) -> int | float | None:
    if value == "":
        return None
    try:
        return int(value)
    except ValueError:
        try:
            return float(value)
        except ValueError:
            raise Fault("bad_number", f"{field} of {id} is {short(value)}") from None


def _unmarked(file: BinaryIO) -> Iterator[bytes]:
    for number, line in enumerate(file):
        yield line if number else line.removeprefix(_MARK)


def _csv(
    lines: Iterable[bytes], kind: str, quotes: bool = True, errors: str = "strict"
) -> Iterator[list[str]]:
    """Rows of cells. A quotation mark out of its place is an error, for it might swallow rows."""
    text = (line.decode(errors=errors) for line in lines)
    options: dict[str, Any] = {"delimiter": _KINDS[kind], "strict": True}
    return csv.reader(text, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, **options)


def _places(file: BinaryIO, name: str, about: dict[str, Any], *, quotes: bool) -> Rows:
    """[offset, size] of every row. JSON is not looked into, and lines without anything are none."""
    kind = kind_of(name)
    if not _KINDS[kind]:
        about["columns"] = None
        at = 0
        for line in file:
            start, size = at, len(line)
            at += size
            if line.strip():
                yield at, [start, size]
        return
    at, number, start = 0, 0, 0

    def counted() -> Iterator[bytes]:
        nonlocal at
        for line in file:
            at += len(line)
            yield line.removeprefix(_MARK) if at == len(line) else line

    try:  # what is no UTF-8 spoils its own row, when that is read
        for number, cells in enumerate(_csv(counted(), kind, quotes, "surrogateescape")):
            if number == 0:
                doubled = sorted({cell for cell in cells if cells.count(cell) > 1})
                if doubled:
                    raise InputError(f"{name} has several columns called {doubled}")
                about["columns"] = cells
            elif cells:
                yield at, [start, at - start]
            start = at
    except csv.Error as error:
        hint = "; quotes=False takes quotation marks as letters" if quotes else ""
        reason = " ".join(str(error).split())
        raise InputError(f"{name}, row {number + 1}, at byte {start}: {reason}{hint}") from error
    if "columns" not in about:
        raise InputError(f"{name} is empty: a CSV begins with the names of its columns")
