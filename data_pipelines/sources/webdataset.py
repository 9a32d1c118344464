"""WebDataset tars, read in any order: members `key.jpg`, `key.txt`, `key.json` are one record.

The layout of the webdataset library, which img2dataset writes: a key is all of a member's name
before the first dot behind its last slash, and what follows, in lower case, is a field. A tar is
read through once; where its members begin is then kept in the cache (see `index`), and a record
takes one request for bytes, of those members only that are asked for.
"""

import copy
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from data_pipelines import files as paths
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fields import Fields, head_of
from data_pipelines.fits import short
from data_pipelines.index import Rows, indexes
from data_pipelines.scan import check_id
from data_pipelines.shards import Shards

USUAL = {"image": "jpg;jpeg;png;webp", "text": "txt;json.caption"}
KEY = "__key__"
_KIND = "webdataset-1"
_MEMBER = re.compile(r"((?:.*/|)[^./]+)[.]([^/]+)")
_TEXT = ("txt", "text", "transcript")


class Source:
    """Records of tars: `source[i]` is read when it is asked for. Threads and pickles may share it.

    A member ending in txt, text or transcript is a string, json what it says, cls an integer, npy
    an array; any other is its bytes.

    Args:
        files: path, brace range, glob or URL of tars, a list of these, or one for each split.
        split: one of those of `files`.
        fields: entry of a record -> field, `json.caption` looking into a json, `jpg;png` taking the
            first that is there. None: image and text, as far as there are any (see `USUAL`).
        id: the field that is the stable identity, as `json.uid`; `__key__` for the key alone, where
            no two tars have the same. None: the tar's name and the key.
        label_names: label -> names.
        limit: keep the first so many records.
        largest: bytes of the largest record that is read.
        cache: where indexes are kept; None: $MMCL_CACHE or ~/.cache/mmcl.

    Raises:
        InputError: a tar is missing, empty, compressed or broken, or has no such field.
    """

    def __init__(
        self,
        *,
        files: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        split: str | None = None,
        fields: Mapping[str, str] | None = None,
        id: str | None = None,
        label_names: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        largest: int = paths.LARGEST,
        cache: str | os.PathLike | None = None,
    ):
        self._indexes = indexes(paths.listed(files, split), _KIND, _members, cache)
        rows = [index.rows for index in self._indexes]
        self._shards = Shards([index.path for index in self._indexes], rows, limit)
        if id is None:
            self._shards.check_names()
        there = sorted({field for index in self._indexes for field in index.about["fields"]})
        if fields is None:
            fields = {
                entry: field
                for entry, field in USUAL.items()
                if any(head_of(one, there) for one in field.split(";"))
            }
            if not fields:
                found = short(there)
                raise InputError(
                    f"no image and no text in these tars: say by `fields` which of {found}"
                )
        self.label_names = {name: list(names) for name, names in (label_names or {}).items()}
        self._fields = Fields(fields, id, self.label_names)
        self._fields.heads([KEY, *there])
        self._largest = largest
        check_id(self, id)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `bad_member`, `too_large`, `missing_field`, or the tar has gone (see `files`).
        """
        file, row = self._shards(index)
        key, members = self._indexes[file][row]
        id = self._shards.name(file, key)
        wanted = [head for head in self._wanted([KEY, *members]) if head != KEY]
        for head in wanted:
            if isinstance(members[head], str):
                raise Fault("bad_member", f"{head} of {id} {members[head]}")
        ranges = [tuple(members[head]) for head in wanted]
        if sum(size for _, size in ranges) > self._largest:
            raise Fault("too_large", f"{id} has more than {self._largest:,} bytes")
        data = paths.read_ranges(self._shards.paths[file], ranges) if ranges else []
        raw = {head: _value(head, piece, id) for head, piece in zip(wanted, data)}
        return self._fields.record({KEY: key, **raw}, id)

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone: no more is read than they need."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        return view

    def _wanted(self, there: list[str]) -> list[str]:
        """Members that are read: of several that would do, the first."""
        assert self._fields.fields is not None
        wanted = list(self._fields.fields.values())
        wanted += [self._fields.id] if self._fields.id is not None else []
        return list(dict.fromkeys(head for field in wanted for head in _heads(field, there)))


def _heads(field: str, there: list[str]) -> list[str]:
    """The member that a field means; a json before it may not have what is looked for in it."""
    heads: list[str] = []
    for one in field.split(";"):
        head = head_of(one, there)
        if head is not None:
            heads.append(head)
            if head == one:
                break
    return heads


def _members(file: BinaryIO, path: str, about: dict[str, Any]) -> Rows:
    """Key and members of every record: field -> [offset, size], or what is wrong with it.

    Members of one key need not stand together.
    """
    if file.read(2) == b"\x1f\x8b":
        raise InputError(f"{path} is compressed, so nothing in it can be found: unpack it (gunzip)")
    file.seek(0)
    records: dict[str, dict[str, list[int] | str]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                found = _MEMBER.fullmatch(member.name)
                if found is None or member.isdir():
                    continue
                members, field = records.setdefault(found[1], {}), found[2].lower()
                if field in members:
                    members[field] = "is there twice"
                elif not member.isreg() or member.issparse():
                    members[field] = "is no plain file"
                else:
                    members[field] = [member.offset_data, member.size]
            file.seek(tar.offset)  # tarfile takes whatever is no header for the end
            end = file.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE or any(end):
                raise tarfile.ReadError(f"neither a header nor the end at byte {tar.offset}")
    except tarfile.TarError as error:
        raise InputError(f"{path} is not a whole tar ({error})") from error
    if not records:
        raise InputError(f"{path} has no records: no member in it is called key.field")
    about["fields"] = sorted({field for members in records.values() for field in members})
    for key, members in records.items():
        ends = [at[0] + at[1] for at in members.values() if not isinstance(at, str)]
        yield max(ends, default=0), [key, members]


def _value(field: str, data: bytes, id: str) -> Any:
    kind = field.rpartition(".")[2]
    try:
        if kind in _TEXT:
            return data.decode()
        if kind == "json":
            return json.loads(data)
        if kind == "cls":
            return int(data)
        if kind == "npy":
            return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, RecursionError) as error:  # it says it is huge
        reason = " ".join(str(error).split())
        raise Fault("bad_member", f"{field} of {id} is no {kind} ({reason})") from error
    return data
