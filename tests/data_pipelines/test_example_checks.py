"""What must not stand in a batch."""

import numpy as np
import pytest

from data_pipelines.example_checks import difference, empty, finite


@pytest.mark.parametrize("value", ["", " \n", b"", [], {}, np.zeros((0, 3))])
def test_empty(value):
    assert empty(value)


@pytest.mark.parametrize("value", ["a", b"\0", [""], {"a": None}, np.zeros(1), 0, 0.0, None, True])
def test_not_empty(value):
    assert not empty(value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_not_finite(bad, dtype):
    value = np.ones((2, 3), dtype)
    assert finite({"value": value, "more": {"x": 1.0, "i": np.int32(3), "words": "a"}})
    value[1, 2] = bad
    assert not finite({"value": value}) and not finite({"more": {"x": value}})
    assert not finite(float(bad)) and not finite(np.float32(bad))
    assert finite({"value": np.ones(1), "raw": value})


def test_difference():
    like = {"value": np.zeros((2, 3), np.float32), "mask": np.ones(2, bool), "raw": "abc"}
    other = {"value": np.ones((2, 3), np.float32), "mask": np.zeros(2, bool), "raw": np.zeros(9)}
    assert difference(other, like) is None
    assert difference(like | {"value": np.zeros((2, 4), np.float32)}, like) == (
        "value is float32 (2, 4), in other records float32 (2, 3)"
    )
    assert difference(like | {"mask": np.ones(2, np.int8)}, like) == (
        "mask is int8 (2,), in other records bool (2,)"
    )
    assert difference({"value": like["value"]}, like) == (
        "it has ['value'], in other records ['mask', 'raw', 'value']"
    )
    assert difference(np.zeros(2), like) == (
        "it is float64 (2,), in other records the parts ['mask', 'raw', 'value']"
    )
    assert difference(like, like["value"]) == (
        "it is the parts ['mask', 'raw', 'value'], in other records float32 (2, 3)"
    )
    assert difference(np.array(["a"]), np.array(["bcd"])) is None  # of any length
    assert difference({"a": {"b": np.zeros(2)}}, {"a": {"b": np.zeros(3)}}) == (
        "b is float64 (2,), in other records float64 (3,)"
    )
