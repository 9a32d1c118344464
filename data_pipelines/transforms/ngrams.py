"""Text as a bag of its character n-grams, hashed: no vocabulary to learn, store or outgrow.

The subwords of fastText (Bojanowski et al. 2017, arXiv:1607.04606), taken of whole strings, with
the hashing trick (Weinberger et al. 2009, arXiv:0902.2206).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError


def hashed(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    sizes: Sequence[int] = (1, 2, 3, 4, 5),
    buckets: int = 2**13,
    length: int = 512,
) -> dict[str, Any]:
    """The bucket of every n-gram of a string, repeats included.

    n-grams are of UTF-8 bytes, the string between marks of its start and end. Those of the first
    size come first, from left to right, then those of the next; more than `length` are cut off. An
    n-gram has the same bucket on every machine and in every string.

    Args:
        value: the string; an empty one has the n-grams of its marks.
        sizes: the n of the n-grams.
        buckets: how many there are: that of the tower.
        length: of the result, padded with bucket 0.

    Returns:
        `value` (L,) int32 in [0, buckets), `mask` (L,) bool, `raw` the string.

    Raises:
        InputError: a size, or `buckets`, is less than 1.
    """
    if min(sizes, default=0) < 1 or buckets < 1:
        raise InputError(f"ngrams.hashed: sizes={sizes!r}, buckets={buckets} must be 1 or more.")
    hash_N = hashes(b"\x02" + value.encode() + b"\x03", sizes)[:length]
    value_L = np.zeros(length, np.int32)
    value_L[: len(hash_N)] = hash_N % np.uint32(buckets)
    return {"value": value_L, "mask": np.arange(length) < len(hash_N), "raw": value}


def hashes(text: bytes, sizes: Sequence[int]) -> np.ndarray:
    """32-bit hashes of the n-grams of `text`, size by size: FNV-1a, its bits mixed once more.

    FNV-1a of an n-gram and the byte after it is one multiplication from that of the n-gram alone,
    so that all n-grams of one size are made at once out of those of the size before.
    """
    byte_N = np.frombuffer(text, np.uint8)
    hash_N = np.full(len(byte_N) + 1, _FNV_OFFSET, np.uint32)
    of_size = {}
    for n in range(1, min(max(sizes), len(byte_N)) + 1):
        hash_N = (hash_N[:-1] ^ byte_N[n - 1 :]) * _FNV_PRIME
        of_size[n] = hash_N
    made = np.concatenate([of_size[n] for n in sizes if n in of_size] or [hash_N[:0]])
    made = (made ^ (made >> np.uint32(15))) * _MIX
    return made ^ (made >> np.uint32(13))


_FNV_OFFSET = np.uint32(0x811C9DC5)
_FNV_PRIME = np.uint32(0x01000193)
_MIX = np.uint32(0x85EBCA6B)
