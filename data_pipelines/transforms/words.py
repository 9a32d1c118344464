"""Text as a bag of its words, hashed: no vocabulary to learn, store or outgrow.

The hashing trick (Weinberger et al. 2009, arXiv:0902.2206) on whole words. Beside `ngrams`: what is
said of one word says nothing of another that is spelt alike. Where a script puts no spaces between
words (Chinese, Thai), a word is as long as a phrase; take `ngrams` there.
"""

import re
import zlib
from typing import Any

import numpy as np


def hashed(
    value: str, *, rng: np.random.Generator, train: bool, length: int = 64
) -> dict[str, Any]:
    """A number for every word of a string, repeats included, whatever its case.

    A word is a longest run of letters, digits and underscores of any script. The same word has the
    same number on every machine (CRC-32 of UTF-8); a tower takes the remainder by the number of its
    buckets.

    Args:
        length: of the result, cut off or padded with 0.

    Returns:
        `value` (L,) int32 from 0 to 2**31 - 1, `mask` (L,) bool, `raw` the string.
    """
    words = re.findall(r"\w+", value.casefold())[:length]
    value_L = np.zeros(length, np.int32)
    value_L[: len(words)] = [zlib.crc32(word.encode()) & 0x7FFFFFFF for word in words]
    return {"value": value_L, "mask": np.arange(length) < len(words), "raw": value}
