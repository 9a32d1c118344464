"""Text as a bag of its character n-grams, hashed: no vocabulary to learn, store or outgrow.

The subwords of fastText (Bojanowski et al. 2017, arXiv:1607.04606), here of whole strings, with the
hashing trick (Weinberger et al. 2009, arXiv:0902.2206).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError

_START, _END = b"\x02", b"\x03"
_FNV_OFFSET, _FNV_PRIME = np.uint32(0x811C9DC5), np.uint32(0x01000193)
_ODD = np.uint32(0x85EBCA6B)


def hashed(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    sizes: Sequence[int] = (1, 2, 3, 4, 5),
    length: int = 512,
) -> dict[str, Any]:
    """A number for every n-gram of a string, repeats included.

    n-grams are of UTF-8 bytes, the string between marks of its start and end. Those of the first
    size come first, from left to right, then those of the next; what is over `length` is cut off.
    The same n-gram has the same number on every machine, and any number of low bits of it is as
    good as a hash: a tower takes the remainder by the number of its buckets.

    Args:
        value: the string; an empty one has the n-grams of its marks.
        sizes: the n of the n-grams, in bytes.
        length: of the result, padded with 0.

    Returns:
        `value` (L,) int32 from 0 to 2**31 - 1, `mask` (L,) bool, `raw` the string.

    Raises:
        InputError: there is no size, or one below 1.
    """
    if min(sizes, default=0) < 1:
        raise InputError(f"ngrams.hashed: sizes={sizes!r}; name one or more, each 1 or more.")
    hash_N = hashes(_START + value.encode() + _END, sizes)[:length]
    value_L = np.zeros(length, np.int32)
    value_L[: len(hash_N)] = hash_N & np.uint32(2**31 - 1)
    return {"value": value_L, "mask": np.arange(length) < len(hash_N), "raw": value}


def hashes(text: bytes, sizes: Sequence[int]) -> np.ndarray:
    """The hash of every n-gram of `text`, size by size: uint32, FNV-1a with its bits mixed.

    FNV-1a goes byte by byte, so all n-grams of one size take one step from those of the size below.
    """
    byte_N = np.frombuffer(text, np.uint8)
    hash_N = np.full(len(byte_N) + 1, _FNV_OFFSET)  # of the empty n-gram at every place
    of_size = {}
    for n in range(1, max(sizes) + 1):
        hash_N = (hash_N[:-1] ^ byte_N[n - 1 :]) * _FNV_PRIME
        of_size[n] = hash_N
    made = np.concatenate([of_size[n] for n in sizes])
    made = (made ^ (made >> np.uint32(15))) * _ODD
    return made ^ (made >> np.uint32(13))
