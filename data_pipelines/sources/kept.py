"""A part of the records, chosen by what is known of each: the filters and prunings of data sets.

With scores of a side file: EL2N or GraNd early in training, of which the low ones are pruned (P329:
`top=0.5`, of scores averaged over seeds); CLIP scores after numbers were taken out of the captions
(P359: `top=0.4`). How many are kept is exact, and which does not depend on how files are cut.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.files import listed, opened
from data_pipelines.fits import short
from data_pipelines.ids import Ids, hashes
from data_pipelines.open_source import open_source
from data_pipelines.scan import only, scanned
from data_pipelines.side import Side


class Source:
    """Those records of a source that a rule keeps, in their order.

    Threads and pickles may share it. There are three rules, of which one is given: `at_least` and
    `at_most` (either or both, bounds included), `top`, and `ids`. A record without a score, or with
    one that is no number (NaN), is not kept.

    Args:
        source: a section like this one, of the records.
        field: the score: an entry of the records, or a column of `side`.
        side: file or files in which the scores are, see `side`.
        key: the column of ids in `side` or `ids`.
        at_least, at_most: bounds of the score.
        top: keep those with the highest scores: a share of all records (a fraction of up to 1.0,
            rounded down) or their number (a whole number). Of equal scores, some that are drawn by
            a hash of the id.
        ids: keep the records of these: a text file with an id a line, or any file that `side` may
            be. An id that no record has is no error.
        splits: the splits that the rule is for, others are whole; None: for all.
        split: is passed on to the source.

    Raises:
        InputError: there is no rule or more than one, it keeps nothing, or there are fewer scores
            than records to keep.
    """

    def __init__(
        self,
        *,
        source: Mapping[str, Any],
        field: str | None = None,
        side: str | Sequence[str] | None = None,
        key: str = "id",
        at_least: float | None = None,
        at_most: float | None = None,
        top: int | float | None = None,
        ids: str | Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        split: str | None = None,
    ):
        bounded = at_least is not None or at_most is not None
        if bounded + (top is not None) + (ids is not None) != 1:
            raise InputError("kept: give one rule: at_least and/or at_most, or top, or ids.")
        if (field is None) != (ids is not None):
            raise InputError("kept: at_least, at_most and top need a `field`, and ids has none.")
        section = dict(source) if split is None else {**source, "split": split}
        self._source = open_source(section, "source.source")
        self.label_names = self._source.label_names
        self.folder = getattr(self._source, "folder", None)
        if splits is not None and split not in splits:
            kept = np.arange(len(self._source))
        elif ids is not None:
            wanted = _listed_ids(ids, key)
            found = (
                r is not None and wanted.find(r["id"]) is not None for r in scanned(self._source)
            )
            kept = np.flatnonzero(np.fromiter(found, bool))
        else:
            assert field is not None
            score_N, hash_N = self._scores(field, side, key)
            if top is None:
                low = -np.inf if at_least is None else at_least
                high = np.inf if at_most is None else at_most
                kept = np.flatnonzero((score_N >= low) & (score_N <= high))
            else:
                kept = highest(score_N, hash_N, wanted_number(top, len(score_N)))
        if not len(kept):
            raise InputError(f"kept: none of {len(self._source):,} records is left by this rule.")
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record, or the Fault of the source."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._source[int(self._kept[index])]

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._source = only(self._source, *entries)
        return view

    def _scores(
        self, field: str, side: str | Sequence[str] | None, key: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each record the score, float64 (N,), NaN where there is none, and its id's hash."""
        records = len(self._source)
        score_N, hash_N = np.full(records, np.nan), np.zeros(records, np.uint64)
        beside = None if side is None else Side(side, key, [field])
        entries = [field] if beside is None else []
        for index, record in enumerate(scanned(self._source, *entries)):
            if record is None:
                continue
            if beside is None:
                score = record.get(field)
            else:
                row = beside.find(record["id"])
                score = None if row is None else beside.value(field, row)
            if score is not None:
                if not isinstance(score, int | float | np.number):
                    what = f"'{field}' of '{record['id']}' is {short(score)}"
                    raise InputError(f"kept: {what}, and should be a number.")
                score_N[index] = score
                [hash_N[index]] = hashes([record["id"]])
        if np.isnan(score_N).all():
            raise InputError(f"kept: no record has a number as '{field}'.")
        return score_N, hash_N


def wanted_number(top: int | float, records: int) -> int:
    """How many of the records a share or number is; a share is taken as it is written: .29 of 100
    are 29, which floating point does not know.

    Raises:
        InputError: it is not above 0, or a share above 1.
    """
    if top <= 0 or (isinstance(top, float) and top > 1):
        raise InputError(f"kept.top: {top} should be a share of up to 1.0, or a whole number.")
    return top if isinstance(top, int) else int(Fraction(repr(top)) * records)


def highest(score_N: np.ndarray, hash_N: np.ndarray, number: int) -> np.ndarray:
    """Which have the highest scores, in rising order: exactly so many.

    Raises:
        InputError: there are not so many scores.
    """
    scored = np.flatnonzero(~np.isnan(score_N))
    if len(scored) < number:
        raise InputError(
            f"kept.top: {number:,} records should be kept, but only {len(scored):,} have a score."
        )
    order = np.lexsort((hash_N[scored], -score_N[scored]))  # the last key counts most
    return np.sort(scored[order[:number]])


def _listed_ids(files: str | Sequence[str], key: str) -> Ids | Side:
    names = listed(files)
    return Ids(_lines(names)) if names[0].endswith(".txt") else Side(names, key, [])


def _lines(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        with opened(name) as file:
            yield from (line.decode().strip() for line in file if line.strip())
