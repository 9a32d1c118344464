"""Records, and what another job made of them: teacher vectors, scores, cluster ids, captions.

Columns of a side file are attached by the stable id of a record: the teacher's embeddings of a
distillation, the clusters of MCL (P006), EL2N scores (P329), CLIP scores of
cleaned captions (P359).
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.open_source import open_source
from data_pipelines.scan import only, scanned
from data_pipelines.side import Side


class Source:
    """The records of a source with further entries. Threads and pickles may share it.

    Args:
        source: a section like this one, of the records.
        side: file or files, see `side`.
        key: its column of ids.
        fields: new entry -> column; None: every column under its own name.
        missing: of a record that is not in the side file: `none` leaves the entries as they are, or
            None where there are none; `error` refuses the whole; `drop` leaves such records out.
        split: is passed on to the source.
        label_names: label -> names, of the new entries.

    Raises:
        InputError: the source or the side file cannot be opened, an id stands there twice, or
            hardly any record is in it; `missing="error"` and one is not.
    """

    def __init__(
        self,
        *,
        source: Mapping[str, Any],
        side: str | Sequence[str],
        key: str = "id",
        fields: Mapping[str, str] | None = None,
        missing: Literal["none", "error", "drop"] = "none",
        split: str | None = None,
        label_names: Mapping[str, Sequence[str]] | None = None,
    ):
        section = dict(source) if split is None else {**source, "split": split}
        self._source = open_source(section, "source.source")
        columns = None if fields is None else list(dict.fromkeys(fields.values()))
        self._side = Side(side, key, columns)
        self._fields = dict(fields or {name: name for name in self._side.columns})
        if "id" in self._fields:
            raise InputError("fields: a side file cannot give a new 'id'; call it otherwise.")
        self._key = key
        self._kept: np.ndarray | None = None
        if missing == "none":
            self._look()
        else:
            self._keep(missing)
        named = {label: list(names) for label, names in (label_names or {}).items()}
        self.label_names = {**self._source.label_names, **named}
        self.folder = getattr(self._source, "folder", None)

    def __len__(self) -> int:
        return len(self._source) if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record, or the Fault of the source."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        record = self._source[index if self._kept is None else int(self._kept[index])]
        row = self._side.find(record["id"])
        if row is None:
            return {**dict.fromkeys(self._fields), **record}
        return record | {name: self._side.value(of, row) for name, of in self._fields.items()}

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._fields = {entry: of for entry, of in self._fields.items() if entry in entries}
        view._source = only(self._source, *entries)
        return view

    def _look(self) -> None:
        """Of a thousand records, some should be in a side file that is not far shorter.

        Raises:
            InputError: none is.
        """
        records = len(self._source)
        view, seen = only(self._source), None
        for index in range(0, records, records // 1000 or 1):
            with contextlib.suppress(Fault):
                seen = view[index]["id"]
                if self._side.find(seen) is not None:
                    return
        if seen is not None and len(self._side) * 10 >= records:
            raise InputError(self._strangers(seen))

    def _keep(self, missing: str) -> None:
        """Find the records that are in the side file; a record that cannot be used is kept, for
        whoever reads it to see.

        Raises:
            InputError: one is not, and `missing` is `error`; or none is.
        """
        kept, absent = [], []
        for index, record in enumerate(scanned(self._source)):
            if record is None or self._side.find(record["id"]) is not None:
                kept.append(index)
            else:
                absent.append(record["id"])
        if absent and not kept:
            raise InputError(self._strangers(absent[0]))
        if absent and missing == "error":
            raise InputError(
                f"{len(absent):,} records are not in the side file, the first of them '{absent[0]}'"
            )
        self._kept = np.array(kept, np.int64)

    def _strangers(self, id: str) -> str:
        return f"no record is in the side file; is '{id}' an id as its '{self._key}' has them?"
