"""Resampling against Pillow and against the formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import resample as module
from data_pipelines.resample import resample

WAYS = [module._pillow] + ([module._simd] if module._HAS_SIMD else [])


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request, monkeypatch):
    monkeypatch.setattr(module, "_HAS_SIMD", request.param is not module._pillow)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    sides=st.tuples(*[st.integers(1, 40)] * 4),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
    channels=st.sampled_from([3, 4]),
)
def test_a_part_is_what_pillow_makes_of_it(seed, sides, edges, channels):
    height, width, down, across = sides
    x0, x1 = sorted(edges[:2])
    y0, y1 = sorted(edges[2:])
    box = (x0 * (width - 1), y0 * (height - 1), x1 * (width - 1) + 1, y1 * (height - 1) + 1)
    value = noise(height, width, channels, seed)
    if channels == 4:
        value[..., 3] |= 0x80  # what is hardly there has no colour to compare
    found = resample(value, down, across, box)
    left, top = int(box[0]), int(box[1])
    part = Image.fromarray(value).crop((left, top, math.ceil(box[2]), math.ceil(box[3])))
    inside = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    picture = part.resize((across, down), Image.Resampling.BILINEAR, box=inside)
    assert found.shape == (down, across, channels)
    assert found.dtype == np.uint8
    assert np.abs(found - np.asarray(picture).astype(int)).max() <= (1 if channels == 3 else 6)


def test_half_the_size_is_a_triangle_over_four_pixels(way):
    value = noise(16, 16)
    found = resample(value, 8, 8)
    weights = np.array([1, 3, 3, 1]) / 8
    for y, x in ((1, 1), (3, 4), (6, 6)):
        part = value[2 * y - 1 : 2 * y + 3, 2 * x - 1 : 2 * x + 3].astype(float)
        assert np.abs(found[y, x] - np.einsum("yxc,y,x->c", part, weights, weights)).max() <= 1


def test_the_same_size_is_the_same_picture(way):
    value = noise(9, 7)
    np.testing.assert_array_equal(resample(value, 9, 7), value)
    np.testing.assert_array_equal(resample(value, 4, 3, (2, 5, 5, 9)), value[5:9, 2:5])


def test_nothing_outside_the_box_is_looked_at(way):
    value = noise(20, 20)
    other = noise(20, 20, seed=1)
    other[4:12, 6:15] = value[4:12, 6:15]
    box = (6.3, 4.2, 14.9, 11.5)
    np.testing.assert_array_equal(resample(value, 5, 5, box), resample(other, 5, 5, box))


def test_a_box_may_be_past_the_edge_by_rounding(way):
    value = noise(6, 6)
    found = resample(value, 3, 3, (0, 0, 6 + 1e-9, 6 + 1e-9))
    np.testing.assert_array_equal(found, resample(value, 3, 3))


def test_colours_are_weighted_with_alpha(way):
    value = np.zeros((4, 4, 4), np.uint8)
    value[:, :2] = (200, 100, 50, 255)
    value[:, 2:] = (0, 255, 0, 0)
    found = resample(value, 1, 1)[0, 0]
    assert np.abs(found[:3] - np.array([200, 100, 50])).max() <= 2
    assert abs(int(found[3]) - 128) <= 1


def test_views_of_an_array_are_read_as_they_look(way):
    value = noise(12, 10)
    turned = value.swapaxes(0, 1)[::-1, ::-1]
    copy = np.ascontiguousarray(turned)
    np.testing.assert_array_equal(resample(turned, 5, 4), resample(copy, 5, 4))
