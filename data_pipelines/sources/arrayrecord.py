"""ArrayRecord files of our own records (see `records`): one msgpack map each.

Examples of TensorFlow are no such maps: those that TFDS wrote are read by the source `tfds`.
Remote files are copied whole into the cache first, for the library reads local ones only.
"""

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
from array_record.python.array_record_data_source import ArrayRecordDataSource

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fields import Fields
from data_pipelines.files import LARGEST, THREADS, copied, every_facts, listed, not_too_large
from data_pipelines.fits import short
from data_pipelines.scan import check_id
from data_pipelines.shards import Shards


class Source:
    """Records of ArrayRecord files: `source[i]` is read when it is asked for. Threads and pickles
    may share it.

    Args:
        files: path, brace range, glob or URL, a list of these, or one for each split.
        split: one of those of `files`.
        fields: entry of a record -> key, `meta.caption` looking into a map. None: every key under
            its own name.
        id: the key that is the stable identity. None: `id` if the first record has one, else the
            name of the file and the row.
        label_names: label -> names.
        limit: keep the first so many records.
        largest: bytes of the largest record that is taken.
        cache: where remote files are copied to; None: $MMCL_CACHE or ~/.cache/mmcl.

    Raises:
        InputError: a file is missing or broken, or does not hold such records.
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
        largest: int = LARGEST,
        cache: str | os.PathLike | None = None,
    ):
        local = copied(listed(files, split), cache)
        every_facts(local)
        with ThreadPoolExecutor(THREADS) as pool:
            self._files = list(pool.map(_opened, local))
        self._shards = Shards(local, [len(file) for file in self._files], limit)
        self._largest = largest
        if id is None and "id" in self._first():
            id = "id"
        if id is None:
            self._shards.check_names()
        self.label_names = {label: list(those) for label, those in (label_names or {}).items()}
        self._fields = Fields(fields, id, self.label_names)
        check_id(self, id)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `bad_record`, `too_large`, `missing_field`.
        """
        id, raw = self._raw(index, self._largest)
        return self._fields.record(raw, id)

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        return view

    def _raw(self, index: int, largest: int) -> tuple[str, dict[str, Any]]:
        file, row = self._shards(index)
        id = self._shards.name(file, row)
        try:
            packed = self._files[file][row]
        except RuntimeError as error:  # what the library raises for any failure of a file
            gone = not os.path.exists(self._shards.paths[file])
            reason = " ".join(str(error).split())
            raise Fault("vanished_shard" if gone else "bad_record", f"{id}: {reason}") from error
        not_too_large(packed, largest, id)
        try:
            raw = msgpack.unpackb(packed)
        except Exception as error:  # the library has no error that all others are of
            raise Fault("bad_record", f"{id} is no msgpack ({error})") from error
        if not isinstance(raw, dict):
            raise Fault("bad_record", f"{id} is no map, but {short(raw)}")
        return id, raw

    def _first(self) -> dict[str, Any]:
        """The first record that is one; if none of the first few is, these are no records."""
        for index in range(min(len(self), 10)):
            try:
                return self._raw(index, sys.maxsize)[1]
            except Fault as fault:
                found = fault
        raise InputError(
            f"{self._shards.paths[0]} seems not to hold msgpack maps ({found.reason}); examples of "
            "TensorFlow are read by the source 'tfds'"
        )


def _opened(path: str) -> ArrayRecordDataSource:
    try:
        return ArrayRecordDataSource(path)
    except RuntimeError as error:
        raise InputError(f"{path} is no ArrayRecord: {' '.join(str(error).split())}") from error
