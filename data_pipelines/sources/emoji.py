"""About 1,900 emoji drawn by several artists, named in 14 languages.

A record is one picture: `image` uint8 (64, 64, 4) RGBA on a transparent ground; `text` its captions
by language, the name first, and English `keywords` and `categories`; integer labels: `concept`
(which emoji it is), `artist`, `group`, `subgroup` and `family` (see `emoji_families`).

The splits part artists, and families of concepts:
    train           OpenMoji in colour and as line drawings, and Twemoji
    unseen_artist   Noto Emoji's drawings of the concepts of `train`
    unseen_concept  OpenMoji in colour and Twemoji, of families that are not in `train`
    unseen_both     Noto Emoji's drawings of those
"""

import bisect
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.cache import prepared
from data_pipelines.errors import InputError
from data_pipelines.records import Records
from data_pipelines.sources import emoji_build

NAME = "emoji-v1"


class Source:
    """One split of the emoji: `source[i]` is a record, read and decoded when it is asked for.

    Threads may share a source, and a pickled one opens its file anew.

    Args:
      split: one of `Source.splits`.
      cache: where prepared data is kept; None: $MMCL_CACHE or ~/.cache/mmcl.
      limit: keep the first so many of the concepts that training sees, in a fixed shuffled order,
        or of those that it does not; thus limited splits of two artists still show the same ones.

    Raises:
      InputError: no such split, or the data cannot be prepared or is damaged.
    """

    splits: tuple[str, ...] = emoji_build.SPLITS

    def __init__(
        self, *, split: str, cache: str | os.PathLike | None = None, limit: int | None = None
    ):
        if split not in self.splits:
            raise InputError(f"emoji has no split {split!r}: use one of {', '.join(self.splits)}")
        if limit is not None and limit < 1:
            raise InputError(f"limit={limit} leaves no emoji: use 1 or more, or None for all")
        self.folder = prepare(cache)
        self._records = Records(self.folder / f"{split}.arrayrecord")
        labels = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        self.label_names: dict[str, list[str]] = labels["names"]
        self._length = len(self._records)
        if limit is not None:  # records are sorted by concept, and those that training sees first
            first = 0 if split in ("train", "unseen_artist") else labels["seen_concepts"]
            self._length = bisect.bisect_left(
                range(self._length), first + limit, key=lambda i: self._records[i]["concept"]
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        record = self._records[index]
        return record | {"image": np.asarray(Image.open(io.BytesIO(record["image"])))}


def prepare(cache: str | os.PathLike | None = None) -> Path:
    """The folder of the drawn emoji, made in some ten seconds if it is not there.

    It holds a file of records for each split, labels.json, tokenizer.json (learnt from the captions
    of `train`), ATTRIBUTION.md and manifest.json.

    Raises:
      InputError: a package is missing, or the folder cannot be written or is damaged.
    """
    return prepared(NAME, emoji_build.build, cache)
