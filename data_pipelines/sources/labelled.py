"""Records with the list of all their labels, out of the pool of those that training knows.

For extreme multi-label retrieval (P043): tags, keywords, categories, of which a record has several
and the pool thousands. `labels.sampled` makes label slots of them, and the evaluator
`label_ranking` ranks the whole pool for each record.
"""

import copy
import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.fields import look_up
from data_pipelines.open_source import open_source
from data_pipelines.scan import only, scanned


@dataclass(frozen=True)
class Labels:
    """All labels of one record: their numbers in the pool, as the record orders them, at least one;
    and the pool, in the order of the alphabet.
    """

    own: tuple[int, ...]
    pool: tuple[str, ...]


class Source:
    """Those records of a source that have a label of the pool, each with an entry of `Labels`.
    Threads and pickles may share it.

    The pool is made by looking through the records of `source` as it stands there, the training
    split, whatever split is opened: a label that only an evaluated split knows is no label.

    Args:
        source: a section like this one, of the records.
        field: where a record has its labels, a list of strings: an entry of it, or the way to it
            through mappings (`"text.keywords"`).
        entry: what the new entry is called.
        least: of how many records a label of the pool is.
        split: is passed on to the source.

    Raises:
        InputError: no label is left in the pool, or no record of the split has one.
    """

    def __init__(
        self,
        *,
        source: Mapping[str, Any],
        field: str,
        entry: str = "label",
        least: int = 1,
        split: str | None = None,
    ):
        section = dict(source) if split is None else {**source, "split": split}
        self._source = open_source(section, "source.source")
        self._field, self._entry = field, entry
        self._pool = _pool(json.dumps(source), field, least)
        self._number = {label: number for number, label in enumerate(self._pool)}
        self._kept = _kept(json.dumps(section), field, self._pool)
        self.label_names = self._source.label_names
        self.folder = getattr(self._source, "folder", None)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record, or the Fault of the source."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        record = self._source[int(self._kept[index])]
        known = (self._number.get(label) for label in _listed(record, self._field))
        own = tuple(dict.fromkeys(number for number in known if number is not None))
        return {**record, self._entry: Labels(own, self._pool)}

    def only(self, *entries: str) -> "Source":
        """The same records with these entries, and the labels."""
        view = copy.copy(self)
        view._source = only(self._source, *entries, _head(self._field))
        return view


def _head(field: str) -> str:
    return field.partition(".")[0]


def _listed(record: Mapping[str, Any], field: str) -> list[str]:
    """Its labels; none where it has another thing there."""
    labels = look_up(record, field)
    return (
        [one for one in labels if isinstance(one, str)] if isinstance(labels, list | tuple) else []
    )


def _every(section: str, field: str) -> Iterator[list[str]]:
    """The labels of each record of a source."""
    source = open_source(json.loads(section), "source.source")
    for record in scanned(source, _head(field)):
        yield _listed(record or {}, field)


@functools.lru_cache
def _pool(section: str, field: str, least: int) -> tuple[str, ...]:
    """The labels of so many records; looked for once a process."""
    count = Counter(label for labels in _every(section, field) for label in set(labels))
    if not count:
        raise InputError(f"labelled.field: no record has a list of strings as its '{field}'.")
    pool = tuple(sorted(label for label, records in count.items() if records >= least))
    if not pool:
        raise InputError(f"labelled.least: no label in '{field}' is that of {least} records.")
    return pool


@functools.lru_cache
def _kept(section: str, field: str, pool: tuple[str, ...]) -> np.ndarray:
    """The numbers of the records that have a label of the pool; looked for once a process."""
    known = set(pool)
    kept = np.flatnonzero([not known.isdisjoint(labels) for labels in _every(section, field)])
    if not len(kept):
        raise InputError(f"labelled: no record of this split has a label of the pool in '{field}'.")
    return kept
