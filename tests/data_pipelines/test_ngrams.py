"""Hashed n-grams against FNV-1a written out byte by byte."""

import itertools
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.transforms.ngrams import hashed


def fnv1a(text: bytes) -> int:
    """http://www.isthe.com/chongo/tech/comp/fnv, 32 bits."""
    hashed = 2166136261
    for byte in text:
        hashed = ((hashed ^ byte) * 16777619) % 2**32
    return hashed


def number(ngram: bytes) -> int:
    x = fnv1a(ngram)
    x = ((x ^ (x >> 15)) * 2246822507) % 2**32
    return (x ^ (x >> 13)) % 2**31


def call(value, **options):
    return hashed(value, rng=np.random.default_rng(0), train=True, **options)


def test_the_oracle_gives_published_values():
    assert [fnv1a(text) for text in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


@given(st.text(max_size=40), st.lists(st.integers(1, 7), min_size=1, max_size=4, unique=True))
def test_every_ngram_has_its_number(text, sizes):
    marked = b"\x02" + text.encode() + b"\x03"
    want = [number(marked[i : i + n]) for n in sizes for i in range(len(marked) - n + 1)]
    made = call(text, sizes=sizes, length=1200)
    assert made["value"][made["mask"]].tolist() == want
    assert made["mask"].tolist() == [i < len(want) for i in range(1200)]
    assert made["raw"] == text


@given(st.text(max_size=20), st.integers(1, 40))
def test_what_is_too_long_is_cut_and_what_is_short_is_padded(text, length):
    whole, made = call(text, length=500), call(text, length=length)
    assert made["value"].shape == made["mask"].shape == (length,)
    assert (made["value"].dtype, made["mask"].dtype) == (np.int32, np.bool_)
    np.testing.assert_array_equal(made["value"], whole["value"][:length])
    np.testing.assert_array_equal(made["mask"], whole["mask"][:length])
    assert not made["value"][~made["mask"]].any()


def test_buckets_are_filled_evenly_from_low_bits_and_from_high():
    """Distinct n-grams fall like rain: the counts of buckets have a variance like their mean."""
    words = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=3)]
    numbers = np.unique(np.concatenate([call(w, sizes=(5,), length=1)["value"] for w in words]))
    assert len(numbers) > len(words) - 5
    for bucket in (numbers % 2048, numbers >> 20, numbers % 2039):
        count = np.bincount(bucket)
        assert 0.85 < count.var() / count.mean() < 1.15


@pytest.mark.parametrize("sizes", [(), (0, 1), (-1,)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(InputError, match="sizes="):
        call("ethanol", sizes=sizes)
