"""Arrays in memory, or in NumPy's files: row i of every array is record i."""

import contextlib
import copy
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.fields import Fields
from data_pipelines.files import copied, listed, name_of, opened
from data_pipelines.memory import must_hold
from data_pipelines.shards import Shards

Columns = Mapping[str, Any]  # name -> (N, ...)
_BROKEN = (  # what a damaged zip or header of an array raises
    ValueError, OSError, EOFError, MemoryError, OverflowError, SyntaxError, RuntimeError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


class Source:
    """Records of arrays. Threads and pickles may share it; a pickle opens files anew.

    Args:
        arrays: name -> array or list, all of one length; from Python, or small ones in a config.
        files: in their place .npz files, whose arrays are stacked file after file; or .npy files,
            each of which is one array called as the file is, mapped into memory and read only as
            far as it is used. Path, brace range, glob or URL, a list, or one for each split.
        split: one of those of `files`.
        fields: entry of a record -> array. None: each under its own name.
        id: the array that is the stable identity. None: `id` if there is one, else the row, after
            the name of its .npz file if there is one.
        label_names: label -> names.
        limit: keep the first so many records.
        cache: where remote .npy files are copied to; None: $MMCL_CACHE or ~/.cache/mmcl.

    Raises:
        InputError: both or none of arrays and files are given, lengths differ, or a file is broken.
    """

    def __init__(
        self,
        *,
        arrays: Mapping[str, Any] | None = None,
        files: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        split: str | None = None,
        fields: Mapping[str, str] | None = None,
        id: str | None = None,
        label_names: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        cache: str | os.PathLike | None = None,
    ):
        if (arrays is None) == (files is None):
            raise InputError("arrays: give either `arrays` or `files`.")
        if arrays is not None:
            if split is not None:
                raise InputError(f"There is no split '{split}': `arrays` have no splits.")
            self._names: list[str] = []
            self._parts: list[Columns] = [arrays]
        else:
            assert files is not None
            self._names = listed(files, split)
            self._parts = parts(self._names, cache)
        self._cache = cache
        self._stacked = bool(self._names) and self._names[0].lower().endswith(".npz")
        names = self._names if self._stacked else ["arrays"]
        there = list(self._parts[0])
        for name, part in zip(names, self._parts):
            if sorted(part) != sorted(there):
                raise InputError(f"{name} has {sorted(part)}, but {names[0]} has {sorted(there)}")
        self._shards = Shards(names, list(map(_length, self._parts, names)), limit)
        if id is None and "id" in there:
            id = "id"
        if id is None:
            self._shards.check_names()
        if fields is None:
            fields = {name: name for name in there if name != "id"}
        self.label_names = {label: list(those) for label, those in (label_names or {}).items()}
        self._fields = Fields(fields, id, self.label_names)
        self._heads = self._fields.heads(there)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `missing_field`, `bad_label`.
        """
        file, row = self._shards(index)
        raw = {name: value(self._parts[file][name][row]) for name in self._heads}
        id = self._shards.name(file, row) if self._stacked else str(row)
        return self._fields.record(raw, id)

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        view._heads = view._fields.heads(self._parts[0])
        return view

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._names:
            del state["_parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._names:
            self._parts = parts(self._names, self._cache)


def parts(names: Sequence[str], cache: str | os.PathLike | None = None) -> list[Columns]:
    """The arrays of each .npz file, or all .npy files as one part.

    Raises:
        InputError: a file is neither, or broken, or holds objects; or the two are mixed.
    """
    ends = {os.path.splitext(name)[1].lower() for name in names}
    if ends == {".npz"}:
        return [_npz(name) for name in names]
    if ends == {".npy"}:
        local = copied(names, cache)
        return [{os.path.splitext(name_of(name))[0]: _npy(name) for name in local}]
    raise InputError(f"arrays: {', '.join(names[:3])} should all end in .npz, or all in .npy")


def value(item: Any) -> Any:
    """A number, string or bytes of an array as Python's own; a copy of what is itself an array."""
    if isinstance(item, np.generic):
        return item.item()
    return np.array(item) if isinstance(item, np.ndarray) else item


def _length(part: Columns, name: str) -> int:
    lengths = {
        column: len(values) if isinstance(values, list | tuple) or np.ndim(values) else None
        for column, values in part.items()
    }
    found = set(lengths.values())
    length = found.pop() if len(found) == 1 else None
    if length is None:
        raise InputError(f"{name}: arrays should be of one length, but are {lengths}")
    return length


def _npz(name: str) -> Columns:
    with opened(name) as file, _whole(name), np.load(file, allow_pickle=False) as arrays:
        must_hold(sum(member.file_size for member in arrays.zip.infolist()), name)
        return dict(arrays)


def _npy(name: str) -> np.ndarray:
    with _whole(name):
        return np.load(name, mmap_mode="r", allow_pickle=False)


@contextlib.contextmanager
def _whole(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{name} is missing") from error
    except _BROKEN as error:
        raise InputError(f"{name} cannot be used: {' '.join(str(error).split())}") from error
