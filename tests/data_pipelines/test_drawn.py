"""Pictures of signals: what is high is above, what is later is right."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import drawn


def test_heat_is_white_where_it_is_high_above_and_right():
    value_TxF = np.zeros((5, 3))
    value_TxF[4, 2] = 8  # the last time, the highest band
    value_TxF[2, 0] = 4
    picture = drawn.heat(value_TxF)
    want = np.zeros((3, 5))
    want[0, 4] = 255
    want[2, 2] = 128
    np.testing.assert_array_equal(picture, np.repeat(want[..., None], 3, axis=2))


@settings(max_examples=30, deadline=None)
@given(
    t=st.integers(1, 400), f=st.integers(1, 200), constant=st.booleans(), seed=st.integers(0, 99)
)
def test_pictures_are_small_bytes(t, f, constant, seed):
    value = np.full((t, f), 3.0) if constant else np.random.default_rng(seed).normal(size=(t, f))
    picture = drawn.heat(value)
    assert picture.shape == (min(f, drawn.SIDE), min(t, drawn.SIDE), 3)
    assert picture.dtype == np.uint8
    curve = drawn.curves(value[:, :2])
    assert curve.shape == (drawn.SIDE // 2, drawn.SIDE, 3)
    assert curve.dtype == np.uint8
    assert (curve < 255).any(axis=2).any(axis=0).all()  # ink in every column


def test_a_curve_rises_with_its_channel():
    picture = drawn.curves(np.linspace(-1, 1, 500)[:, None])
    inked = (picture < 255).any(axis=2)
    assert inked[-1, 0] and inked[0, -1]
    assert not inked[0, :60].any() and not inked[-1, 60:].any()
    both = drawn.curves(np.stack([np.zeros(9), np.ones(9)], axis=1))
    assert (both[0] == both[0, 0]).all() and (both[-1] == both[-1, 0]).all()
    assert (both[0, 0] != both[-1, 0]).any()


def test_four_frames_are_read_by_rows():
    value = np.zeros((7, 5, 5, 3), np.uint8)
    value[:] = np.arange(7)[:, None, None, None]
    picture = drawn.four(value)
    assert picture.shape == (drawn.SIDE, drawn.SIDE, 3)
    assert picture[::64, ::64, 0].tolist() == [[0, 2], [4, 6]]
    assert (drawn.four(value[:1]) == 0).all()
