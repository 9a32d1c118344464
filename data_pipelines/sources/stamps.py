"""Tux Paint's stamps: pictures, captions in many languages, and human voices that speak them.

A record is one stamp: `image`, the bytes of a PNG file (a cut-out photo or a drawing, transparent
around it); `text` by language a list of one caption ("A red kangaroo."); `speech` by language the
bytes of an audio file (Ogg Vorbis, or WAV) in which a volunteer reads the caption, or None; `sound`
those of what is shown (an animal, a tool), or None; integer labels: `concept` (its English caption
whatever the case), `category` and `folder` (where it lies: "animals", "animals/birds"), `group`.

In version 2022.06.04-1: 950 stamps of 16 categories; 62,340 captions in 78 languages, of which 60
have 800 or more; 5,783 clips, 2.4 hours, mostly in French, Russian, Romanian, Bulgarian, Spanish
(about 900 each), Greek (657) and Danish (321), none in Catalan and Belarusian, where they are cut
off; 110 sounds, 4 minutes. Stamps that share a caption, a clip or, nearly, a picture are one
`group`, and no group of 752 is in both splits: `train` has 783 stamps, `val` 167. Siblings such as
two kinds of apple may be parted.

The data come from a Debian package; `mmcl data get stamps` prepares them.
"""

import json
import os
from pathlib import Path

from data_pipelines import cache as caches
from data_pipelines.errors import InputError
from data_pipelines.records import Records
from data_pipelines.sources import stamps_build

NAME = "stamps-v1"


class Source:
    """One split of the stamps: `source[i]` is a record, read when it is asked for.

    Threads may share a source, and a pickled one opens its file anew.

    Args:
      split: one of `Source.splits`.
      cache: where prepared data is kept; None: $MMCL_CACHE or ~/.cache/mmcl.
      limit: keep the first so many stamps of the split.

    Raises:
      InputError: no such split, or the data are not prepared or are damaged.
    """

    splits: tuple[str, ...] = stamps_build.SPLITS

    def __init__(
        self, *, split: str, cache: str | os.PathLike | None = None, limit: int | None = None
    ):
        if split not in self.splits:
            raise InputError(f"stamps has no split {split!r}: use one of {', '.join(self.splits)}")
        if limit is not None and limit < 1:
            raise InputError(f"limit={limit} leaves no stamp: use 1 or more, or None for all")
        self.folder = caches.existing(NAME, cache, "run mmcl data get stamps")
        self._records = Records(self.folder / f"{split}.arrayrecord")
        self._length = min(len(self._records), limit or len(self._records))
        labels = (self.folder / "labels.json").read_text(encoding="utf-8")
        self.label_names: dict[str, list[str]] = json.loads(labels)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self._records[index]


def prepare(cache: str | os.PathLike | None = None) -> Path:
    """The folder of the stamps: downloaded with apt-get if it is not there.

    It holds a file of records for each split, labels.json, ATTRIBUTION.md and manifest.json.

    Raises:
      InputError: apt or a package is missing, apt fails, or the folder cannot be written or is
        damaged.
    """
    return caches.prepared(NAME, stamps_build.build, cache)
