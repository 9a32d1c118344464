"""Where the records of a file stand: found out once, kept on disk, and read row by row.

An index holds one small msgpack value a row (offsets and sizes, a key). It lies in the cache beside
the size and time of the file that it was made from, and is made anew when these have changed. Only
the row that is asked for is read, so an index over a billion records takes no memory.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import struct
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from data_pipelines import cache as caches
from data_pipelines import files
from data_pipelines.errors import InputError
from data_pipelines.progress import Bar

Rows = Iterator[tuple[int, Any]]  # (how far the file is read, what a row says)
Build = Callable[[BinaryIO, str, dict[str, Any]], Rows]

_FORMAT = 1
_WORD = 8  # bytes of an offset
_STEP = 1000  # rows between two moves of the bar


@dataclasses.dataclass(frozen=True)
class Index:
    """`index[row]` is what `build` said of a row.

    Attributes:
        path: the file that it is about.
        rows: how many it has.
        about: what `build` said of the file as a whole.
    """

    path: str
    rows: int
    about: dict[str, Any]
    _file: str
    _table: int  # where in `_file` the offsets of the rows begin

    def __getitem__(self, row: int) -> Any:
        try:
            with open(self._file, "rb", buffering=0) as file:
                at = os.pread(file.fileno(), 2 * _WORD, self._table + row * _WORD)
                start, end = (
                    int.from_bytes(at[:_WORD], "little"),
                    int.from_bytes(at[_WORD:], "little"),
                )
                return msgpack.unpackb(os.pread(file.fileno(), end - start, start))
        except (OSError, ValueError, struct.error) as error:
            raise InputError(
                f"{self._file}, the index of {self.path}, is gone or damaged: run the command again"
            ) from error


def indexes(
    paths: Sequence[str], kind: str, build: Build, cache: str | os.PathLike | None = None
) -> list[Index]:
    """The indexes of files, each made if there is none of the file as it is now.

    Args:
        kind: what the index says; another kind or version of it takes another name.
        build: reads a file (its second argument is the path) and yields, row by row, how far it has
            come and what the row says; what is to be said of the file goes into the third.
        cache: where indexes are kept; None: see `cache.root`.

    Raises:
        InputError: a file is missing or broken, or the cache cannot be written.
    """
    known = files.every_facts(paths)
    places = [_place(path, kind, cache) for path in paths]
    found = [_read(place, path, of) for place, path, of in zip(places, paths, known)]
    missing = [i for i, index in enumerate(found) if index is None]
    if missing:
        total = sum(known[i].size for i in missing)
        with Bar(f"indexing {len(missing)} files", total) as bar:

            def make(i: int) -> Index:
                return _made(places[i], paths[i], known[i], build, bar)

            with ThreadPoolExecutor(files.THREADS) as pool:
                for i, index in zip(missing, pool.map(make, missing)):
                    found[i] = index
    return [index for index in found if index is not None]


def _place(path: str, kind: str, cache: str | os.PathLike | None) -> Path:
    name = hashlib.sha256(f"{kind}\n{path}".encode()).hexdigest()[:32]
    return caches.root(cache) / "indexes" / f"{name}.index"


def _read(place: Path, path: str, of: files.Facts) -> Index | None:
    """The index that lies there, if it is whole and about the file as it is now."""
    try:
        with place.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - _WORD)
            end = int.from_bytes(file.read(_WORD), "little")
            file.seek(end)
            about = json.loads(file.read(size - _WORD - end))
        table = about["table"]
        if about["format"] == _FORMAT and about["facts"] == list(of):
            return Index(path, about["rows"], about["about"], str(place), table)
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        pass  # none, or not a whole one
    return None


def _made(place: Path, path: str, of: files.Facts, build: Build, bar: Bar) -> Index:
    """An index, written under another name first: blobs, their offsets, and what it is about."""
    temporary = place.with_name(f".{place.stem}-{uuid.uuid4().hex[:8]}")
    about: dict[str, Any] = {}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as target:
            starts, rows, seen = array("Q", [0]), 0, 0
            with files.opened(path) as source:
                for at, row in build(source, path, about):
                    blob = msgpack.packb(row)
                    target.write(blob)
                    starts.append(starts[-1] + len(blob))
                    rows += 1
                    if rows % _STEP == 0:
                        bar.advance(at - seen)
                        seen = at
            table, end = starts[-1], starts[-1] + len(starts) * _WORD
            if not array("Q", [1]).tobytes()[0]:
                starts.byteswap()  # on disk they are little-endian
            target.write(starts.tobytes())
            facts = {"format": _FORMAT, "path": path, "facts": list(of), "rows": rows}
            target.write(json.dumps(facts | {"table": table, "about": about}).encode())
            target.write(end.to_bytes(_WORD, "little"))
        temporary.replace(place)
    except OSError as error:
        raise InputError(
            f"cannot index {path} ({' '.join(str(error).split())}); indexes are written to "
            f"{place.parent}, set MMCL_CACHE if that cannot be"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone, or there never was one
            temporary.unlink()
    bar.advance(of.size - seen)
    return Index(path, rows, about, str(place), table)
