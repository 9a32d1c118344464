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

import os
from pathlib import Path

from data_pipelines.cache import prepared
from data_pipelines.sources import emoji_build, emoji_folder

NAME = "emoji-v1"


class Source(emoji_folder.EmojiSplit):
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

    splits: tuple[str, ...] = emoji_folder.SPLITS

    def __init__(
        self, *, split: str, cache: str | os.PathLike | None = None, limit: int | None = None
    ):
        emoji_folder.check("emoji", split, limit)
        super().__init__(prepare(cache), split, limit)


def prepare(cache: str | os.PathLike | None = None) -> Path:
    """The folder of the drawn emoji, made in some ten seconds if it is not there.

    It holds a file of records for each split, labels.json, tokenizer.json (learnt from the captions
    of `train`), ATTRIBUTION.md and manifest.json.

    Raises:
      InputError: a package is missing, or the folder cannot be written or is damaged.
    """
    return prepared(NAME, emoji_build.build, cache)
