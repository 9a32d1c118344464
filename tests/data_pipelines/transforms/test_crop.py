"""Crops: boxes as torchvision's formula has them, pixels as Pillow cuts and resizes them."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.faults import Fault
from data_pipelines.picture_file import opened
from data_pipelines.transforms import crop

quick = settings(max_examples=30, deadline=None)


def photo(height=150, width=200):
    y, x = np.mgrid[:height, :width]
    made = [127 + 100 * np.sin(x / 23), 127 + 100 * np.cos(y / 17), 255 * x / width]
    return np.stack(np.broadcast_arrays(*made), 2).astype(np.uint8)


def encoded(value, format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(value).save(file, format, **options)
    return file.getvalue()


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


@quick
@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    low=st.floats(0.05, 0.5),
)
def test_boxes_lie_inside_and_keep_to_their_ranges(seed, height, width, low):
    box = crop.random_box(
        np.random.default_rng(seed), height, width, scale=(low, 0.6), ratio=(0.5, 1.5)
    )
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    w, h = x1 - x0, y1 - y0
    if min(height, width) > 60 and 0.6 < width / height < 1.4:
        assert low * 0.9 < w * h / (height * width) < 0.66
        assert 0.45 < w / h < 1.65


def test_boxes_are_spread_as_the_formula_says():
    rng = np.random.default_rng(0)
    options = {"scale": (0.1, 0.5), "ratio": (3 / 4, 4 / 3)}
    boxes = np.array([crop.random_box(rng, 1000, 1000, **options) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, shapes = w * h / 1e6, np.log(w / h) / np.log(4 / 3)
    for values, low, high in ((areas, 0.1, 0.5), (shapes, -1, 1)):
        found = np.quantile(values, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(found, np.linspace(low, high, 5)[1:4], atol=0.04 * (high - low))
    for start, side in ((boxes[:, 0], w), (boxes[:, 1], h)):
        found = np.quantile(start / (1000 - side), [0.25, 0.5, 0.75])
        np.testing.assert_allclose(found, [0.25, 0.5, 0.75], atol=0.04)


@pytest.mark.parametrize(
    "height, width, box", [(10, 100, (43, 0, 56, 10)), (90, 12, (0, 37, 12, 53))]
)
def test_where_no_box_fits_it_is_the_middle(height, width, box):
    rng = np.random.default_rng(0)
    assert crop.random_box(rng, height, width, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3)) == box


@quick
@given(seed=st.integers(0, 999), size=st.integers(1, 60))
def test_random_resized_is_pillows_crop_and_resize(seed, size):
    value = photo()
    box = crop.random_box(
        np.random.default_rng(seed), 150, 200, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)
    )
    want = Image.fromarray(value).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    for given_ in (value, encoded(value)):
        found = run(crop.random_resized, given_, seed, size=size)
        assert found.shape == (size, size, 3)
        assert np.abs(found - np.asarray(want).astype(int)).max() <= 1


@quick
@given(seed=st.integers(0, 999), size=st.sampled_from([16, 32, 64]))
def test_a_jpeg_is_cropped_as_if_it_were_decoded_in_full(seed, size):
    data = encoded(photo(), "JPEG", quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    small = run(crop.random_resized, data, seed, size=size)
    want = run(crop.random_resized, whole, seed, size=size)
    assert np.abs(small - want.astype(int)).mean() < 2


def test_a_jpeg_is_decoded_no_larger_than_needed(monkeypatch):
    picture = opened(encoded(photo(), "JPEG"))
    scales = []
    pixels = picture.pixels
    monkeypatch.setattr(picture, "pixels", lambda scale: scales.append(scale) or pixels(scale))
    crop.cut(picture, [((0, 0, 100, 80), 20), ((0, 0, 50, 50), 30), ((0, 0, 150, 150), 60)])
    assert scales == [0.6]


def test_evaluation_cuts_the_square_in_the_middle():
    value = photo()
    for seed in range(3):
        found = run(crop.random_resized, value, seed, train=False, size=150)
        np.testing.assert_array_equal(found, value[:, 25:175])
    found = run(crop.random_resized, value, train=False, size=75, share=0.5)
    np.testing.assert_array_equal(found, value[37:112, 62:137])


def test_center_keeps_the_pixels():
    value = photo()
    np.testing.assert_array_equal(run(crop.center, value), value[:, 25:175])
    np.testing.assert_array_equal(run(crop.center, encoded(value)), value[:, 25:175])
    np.testing.assert_array_equal(run(crop.center, value, share=0.2), value[60:90, 85:115])


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_pad_puts_the_picture_in_the_middle_of_a_square(shape):
    value = photo(*shape)
    found = run(crop.pad, value, colour=9)
    side = max(shape)
    want = (
        np.pad(
            value.astype(int) - 9,
            [((side - n) // 2, (side - n + 1) // 2) for n in shape] + [(0, 0)],
        )
        + 9
    )
    np.testing.assert_array_equal(found, want)


def test_a_broken_file_is_a_fault():
    with pytest.raises(Fault):
        run(crop.random_resized, encoded(photo())[:300], size=16)
