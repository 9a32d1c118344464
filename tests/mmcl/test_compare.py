"""Paired differences, against SciPy's paired t-test."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from mmcl.compare import compare, paired, varies


@hypothesis.given(st.integers(2, 8), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_equals_scipy(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_N, b_N = rng.normal(size=n), rng.normal(1, 2, size=n)
    found = paired("it", list(a_N), list(b_N))
    expected = stats.ttest_rel(b_N, a_N).confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(b_N) - np.mean(a_N))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_of_one_seed_nothing_is_known() -> None:
    found = paired("it", [1.0], [3.0])
    assert found.difference == 2 and math.isnan(found.low) and math.isnan(found.high)


def test_95_percent_of_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        shared_N = rng.normal(0, 10, size=3)  # what a seed does to both
        found = paired("it", list(shared_N), list(shared_N + rng.normal(1, 1, size=3)))
        held += found.low <= 1 <= found.high
    assert 0.93 <= held / 1000 <= 0.97


def test_numbers_that_all_runs_have() -> None:
    row = {"step": 3, "time": 1.0, "eval/a": 0.5, "eval/b": 1, "hardware": "cpu", "final": True}
    found = compare([row, row], [row | {"eval/a": 0.25}, row | {"eval/b": math.nan}])
    assert [one.metric for one in found] == ["eval/a"]
    assert found[0].a_N == [0.5, 0.5] and found[0].b_N == [0.25, 0.5]
    assert varies(found[0]) and not varies(paired("chance", [0.1, 0.1], [0.1, 0.1]))
