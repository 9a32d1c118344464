"""Vectors and scores as they come."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.faults import Fault
from data_pipelines.transforms import vector


def run(value, train=True, **options):
    return vector.value(value, rng=np.random.default_rng(0), train=train, **options)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_numbers_stay_as_they_are(numbers):
    npy = io.BytesIO()
    np.save(npy, np.array(numbers))
    for form in (numbers, np.array(numbers), np.array([numbers], "f4"), npy.getvalue()):
        found = run(form, length=len(numbers))
        assert found.keys() == {"value"}
        assert found["value"].dtype == np.float32
        np.testing.assert_array_equal(found["value"], np.array(numbers, "f4"))


@pytest.mark.parametrize("score", [3, 0.25, np.float64(0.25), True, np.float32(7)])
def test_a_score_is_a_vector_of_one(score):
    found = run(score, train=False)
    assert found["value"].tolist() == [float(score)]
    assert found["raw"].dtype == np.uint8 and found["raw"].ndim == 3


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1.0, 2.0], "bad_vector"),
        ([1.0, 2.0, 3.0, 4.0], "bad_vector"),
        ([], "bad_vector"),
        (["a", "b", "c"], "bad_vector"),
        ("abc", "bad_vector"),
        ([1.0, float("nan"), 2.0], "nan_vector"),
        ([1.0, None, 2.0], "nan_vector"),
        ([1.0, 1e60, 2.0], "nan_vector"),
    ],
)
def test_other_lengths_and_no_numbers_are_faults(value, kind):
    with pytest.raises(Fault) as caught:
        run(value, length=3)
    assert caught.value.kind == kind


def test_what_is_given_out_is_not_what_came_in():
    value = np.ones(3, "f4")
    run(value, length=3)["value"][:] = 7
    assert value.tolist() == [1, 1, 1]
