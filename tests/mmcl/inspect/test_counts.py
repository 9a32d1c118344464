"""What is counted in raw records."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmcl.inspect.counts import captions, entries, kind, quantiles, texts_of


def jpeg(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "jpeg")
    return file.getvalue()


@pytest.mark.parametrize(
    "value, said",
    [
        ("a dog", "text"),
        (["a", "b"], "texts"),
        ([], "no text"),
        ({"en": ["a"], "de": ["b"]}, "texts by key"),
        ({"en": "a"}, "text by key"),
        (3, "whole number"),
        (np.int64(3), "whole number"),
        (0.5, "number"),
        ([0.5, 1.0], "list of number"),
        (np.zeros((4, 3), np.float32), "float32 4 × 3"),
        (jpeg(20, 10), "JPEG 20 × 10"),
        (b"RIFF....", "bytes"),
    ],
)
def test_what_a_value_is(value, said):
    assert kind(value) == said


RECORDS = [
    {"id": "a", "text": {"en": ["a dog", "one dog here"], "de": ["Hund"]}, "label": 2},
    {"id": "b", "text": {"en": [" "]}, "label": 2, "image": jpeg(8, 8)},
    {"id": "c", "text": None, "label": 5, "image": jpeg(9, 8)},
]


def test_entries():
    text, label, image = entries(RECORDS)
    assert (text.name, text.there, text.kinds) == ("text", 2, Counter({"texts by key": 2}))
    assert (label.there, label.values) == (3, Counter({2: 2, 5: 1}))
    assert (image.there, image.kinds) == (2, Counter({"JPEG 8 × 8": 1, "JPEG 9 × 8": 1}))
    assert not image.values


def test_captions():
    found = captions(RECORDS, "text")
    assert (found.count, found.blank) == (4, 1)
    assert found.languages == Counter({"en": 3, "de": 1})
    assert found.per_record == {"least": 1, "median": 1, "99 %": 3, "most": 3}
    assert found.letters["most"] == len("one dog here") and found.words["most"] == 3
    assert captions(RECORDS, "image") is None


def test_texts_in_any_nest():
    assert list(texts_of({"en": ["a", "b"], "fr": "c"})) == [("en", "a"), ("en", "b"), ("fr", "c")]
    assert list(texts_of(3)) == []


def test_quantiles_are_numbers_that_occur():
    assert quantiles(list(range(1, 101))) == {"least": 1, "median": 50, "99 %": 99, "most": 100}
