"""Numbers in every form that a format may hold them in."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_pipelines.faults import Fault
from data_pipelines.floats import floats


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u4", "?", ">f4"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_lists_arrays_and_files_are_the_same(array):
    with np.errstate(over="ignore"):
        want = array.astype("f4")
    for form in (array, array.tolist(), npy(array)):
        found = floats(form, "vector")
        assert found.dtype == np.float32
        if array.size:  # an empty list has lost its shape
            np.testing.assert_array_equal(found, want)


def test_none_is_nan():
    np.testing.assert_array_equal(floats([1, None, 2.5], "series"), [1, np.nan, 2.5])
    np.testing.assert_array_equal(floats([[None], [3]], "series"), [[np.nan], [3]])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([[1, 2], [3]], "different lengths"),
        (["1", "2"], "holds str"),
        ([1, "2", None], "holds"),
        ([None, "2"], "holds a str where a number should be"),
        ({"a": 1}, "holds a dict"),
        (np.array([1j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (b"1 2 3", "5 bytes are no .npy file"),
        (npy(np.arange(100.0))[:300], "damaged"),
        (npy(np.array([{}], object), allow_pickle=True), "damaged"),
    ],
)
def test_what_holds_no_numbers_is_a_fault(value, reason):
    with pytest.raises(Fault) as caught:
        floats(value, "vector")
    assert caught.value.kind == "bad_vector"
    assert reason in caught.value.reason
