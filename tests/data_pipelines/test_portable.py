"""What every format can hold, and when two records are the same."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.portable import digest, ending, holds_bytes, portable


@pytest.mark.parametrize("channels", [3, 4])
def test_pixels_become_a_file_that_has_them_all(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    made = portable({"image": pixels})["image"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(made))), pixels)


def test_arrays_and_their_numbers_become_plain():
    made = portable({"v": np.float32([[0.1, 2]]), "n": np.int64(3), "t": ("a", b"b"), "x": None})
    assert made == {"v": [[float(np.float32(0.1)), 2.0]], "n": 3, "t": ["a", b"b"], "x": None}
    assert type(made["n"]) is int


def test_what_no_format_holds_is_refused():
    with pytest.raises(InputError, match="No format can hold a object"):
        portable({"a": object()})


def test_formats_do_not_change_a_digest():
    one = digest(
        {"id": "a", "n": 1, "text": {"en": ["x"], "de": None}, "empty": "", "v": [1.0, 0.5]}
    )
    assert one == digest({"text": {"en": ["x"]}, "id": "a", "n": 1.0, "v": [1, 0.5]})


@pytest.mark.parametrize(
    "other",
    [
        {"id": "b", "n": 1, "v": [0.5]},
        {"id": "a", "n": 2, "v": [0.5]},
        {"id": "a", "n": 1, "v": [0.5, 0.5]},
        {"id": "a", "n": 1, "v": 0.5},
        {"id": "a", "n": 1, "v": [0.5], "more": b""},
    ],
)
def test_any_other_change_does(other):
    assert digest({"id": "a", "n": 1, "v": [0.5]}) != digest(other)


@pytest.mark.parametrize(
    "name, kind", [("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp")]
)
def test_the_kind_of_a_picture_is_seen(name, kind):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, name)
    assert ending(file.getvalue()) == kind


def test_the_kind_of_what_is_not_known():
    assert ending(b"RIFF\0\0\0\0WAVEfmt") == "wav" and ending(b"?") == "bin"


def test_bytes_are_found_at_any_depth():
    assert holds_bytes({"a": [{"b": b""}]}) and not holds_bytes({"a": [{"b": "b"}], "c": 1})
