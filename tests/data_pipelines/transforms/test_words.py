import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.transforms import words


def hashed(value: str, **options: int) -> dict:
    return words.hashed(value, rng=np.random.default_rng(0), train=True, **options)


def test_each_word_has_its_number() -> None:
    found = hashed("Dog face: pet, PET_1; 犬", length=8)
    number = [zlib.crc32(word.encode()) % 2**31 for word in ("dog", "face", "pet", "pet_1", "犬")]
    np.testing.assert_array_equal(found["value"], [*number, 0, 0, 0])
    np.testing.assert_array_equal(found["mask"], [True] * 5 + [False] * 3)
    assert found["value"].dtype == np.int32
    assert found["raw"] == "Dog face: pet, PET_1; 犬"


def test_the_numbers_are_the_same_for_ever() -> None:
    assert hashed("dog straße", length=2)["value"].tolist() == [
        zlib.crc32(b"dog") & 0x7FFFFFFF,
        zlib.crc32(b"strasse") & 0x7FFFFFFF,
    ]
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32


@given(st.lists(st.text("abc", min_size=1), max_size=12), st.integers(1, 8))
def test_order_of_words_and_length(listed: list[str], length: int) -> None:
    found = hashed(" ".join(listed), length=length)
    assert found["mask"].sum() == min(len(listed), length)
    one_by_one = [hashed(word, length=1)["value"][0] for word in listed[:length]]
    np.testing.assert_array_equal(found["value"][found["mask"]], one_by_one)
    assert not found["value"][~found["mask"]].any()


def test_no_words() -> None:
    found = hashed(" :-) ")
    assert not found["mask"].any() and not found["value"].any()
