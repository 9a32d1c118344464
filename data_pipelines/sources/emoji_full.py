"""About 1,900 emoji drawn by seven artists, named in a hundred languages.

A record is one picture: `image` uint8 (64, 64, 4) RGBA on a transparent ground; `text` by language
its name and after it keywords (["dog face", "animal", "dog", ...]); integer labels: `concept`
(which emoji it is), `artist`, `group`, `subgroup` and `family` (see `emoji_families`).

The splits part artists, and families of concepts in all languages:
    train           six artists: 8,636 pictures of 1,722 concepts
    unseen_artist   EmojiOne 1's drawings of 1,059 of these
    unseen_concept  the six artists' 1,041 drawings of the 192 concepts of other families
    unseen_both     EmojiOne 1's drawings of 110 of those

EmojiOne 2 was drawn anew. Of the 1,059 pictures of `unseen_artist` (223 are flags) one is nearly
its picture (root mean square difference below .05 of 32 x 32 pixels on white), 24 are nearly
Twemoji's (clock faces, squares, signs), 2 each Noto's, new and old, none OpenMoji's and Fluent's.

The data come from the npm registry; `mmcl data get emoji-full` prepares them.
"""

import os
from pathlib import Path

from data_pipelines import cache as caches
from data_pipelines.records import Records
from data_pipelines.sources import emoji_folder, emoji_full_build

NAME = "emoji-full-v1"


class Source(emoji_folder.EmojiSplit):
    """One split of the fuller emoji: `source[i]` is a record, read when it is asked for.

    Threads may share a source, and a pickled one opens its files anew.

    Args:
      split: one of `Source.splits`.
      cache: where prepared data is kept; None: $MMCL_CACHE or ~/.cache/mmcl.
      limit: keep the first so many of the concepts that training sees, in a fixed shuffled order,
        or of those that it does not; thus limited splits of two artists still show the same ones.

    Raises:
      InputError: no such split, or the data are not prepared or are damaged.
    """

    splits: tuple[str, ...] = emoji_folder.SPLITS

    def __init__(
        self, *, split: str, cache: str | os.PathLike | None = None, limit: int | None = None
    ):
        emoji_folder.check("emoji_full", split, limit)
        folder = caches.existing(NAME, cache, "run mmcl data get emoji-full")
        super().__init__(folder, split, limit)
        self._captions = Records(folder / "captions.arrayrecord")

    def __getitem__(self, index: int) -> dict:
        record = super().__getitem__(index)
        return record | {"text": self._captions[record["concept"]]}


def prepare(cache: str | os.PathLike | None = None) -> Path:
    """The folder of the fuller emoji: downloaded with npm and drawn if it is not there.

    It holds a file of records for each split, captions.arrayrecord (by concept), labels.json,
    tokenizer.json (learnt from the captions of `train`), ATTRIBUTION.md and manifest.json.

    Raises:
      InputError: npm or a package is missing, npm fails, or the folder cannot be written or is
        damaged.
    """
    return caches.prepared(NAME, emoji_full_build.build, cache)
