"""Made-up records, as many as wanted: to plan, measure or try out a training without data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError

WORDS = (
    *("a", "the", "one", "two", "on", "under", "of", "with"),
    *("red", "small", "old", "bright", "wooden", "quiet", "wet", "round"),
    *("cat", "boat", "hill", "lamp", "child", "leaf", "door", "bird"),
)


class Source:
    """Record i is a function of i: noise for every picture, words at random for every text. There
    is nothing to learn in it.

    Args:
        records: how many.
        pictures: entry of a record -> side of its square pictures, which are (side, side, 3) uint8.
        texts: entry of a record -> how many words are in it.
        split: any name; none has other records.

    Raises:
        InputError: there would be no record, or nothing in it.
    """

    label_names: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        *,
        records: int = 2**20,
        pictures: Mapping[str, int] | None = None,
        texts: Mapping[str, int] | None = None,
        split: str | None = None,
    ):
        self._records = records
        self._pictures, self._texts = dict(pictures or {}), dict(texts or {})
        counts = {"records": records, **self._pictures, **self._texts}
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"synthetic: {name} is {count}, and should be 1 or more.")
        if len(counts) == 1:
            raise InputError("synthetic: name an entry, as in pictures=dict(image=224).")

    def __len__(self) -> int:
        return self._records

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._records:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        record: dict[str, Any] = {"id": str(index)}
        for name, side in self._pictures.items():
            record[name] = rng.integers(0, 256, (side, side, 3), np.uint8)
        for name, count in self._texts.items():
            record[name] = " ".join(rng.choice(WORDS, count))
        return record
