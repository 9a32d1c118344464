"""Figures and the intervals they would have moved in."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mmcl.evals.figure import PerItem, intervals, number, numbers, redrawn


def literal(figure: PerItem, draws: int) -> list[float]:
    """Every draw as a list of items, which a plain mean or median sums up."""
    n = len(figure.value_N)
    cluster_N = list(range(n)) if figure.cluster_N is None else list(figure.cluster_N)
    members = [[i for i in range(n) if cluster_N[i] == c] for c in sorted(set(cluster_N))]
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        drawn = [i for c in rng.integers(len(members), size=len(members)) for i in members[c]]
        if figure.median:
            found.append(float(np.median([figure.value_N[i] for i in drawn])))
        else:
            weight = [1.0 if figure.weight_N is None else figure.weight_N[i] for i in drawn]
            total = sum(w * figure.value_N[i] for w, i in zip(weight, drawn))
            found.append(total / sum(weight))
    return found


@st.composite
def figures(draw: st.DrawFn) -> PerItem:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 12))
    median = draw(st.booleans())
    return PerItem(
        rng.integers(2, size=n) if draw(st.booleans()) else rng.normal(size=n),
        rng.integers(-3, 4, size=n) if draw(st.booleans()) else None,
        rng.uniform(0.5, 2, size=n) if draw(st.booleans()) and not median else None,
        median,
    )


@hypothesis.given(figures())
@hypothesis.settings(max_examples=100, deadline=None)
def test_equals_literal_draws(figure: PerItem) -> None:
    np.testing.assert_allclose(redrawn(figure, 20), literal(figure, 20), atol=1e-12)


def test_plain_numbers_have_no_interval() -> None:
    found = {"a": 0.5, "b": PerItem(np.array([True, False, True, True]))}
    assert numbers(found) == {"a": 0.5, "b": 0.75}
    assert intervals(found).keys() == {"b"}


def test_weights_weigh() -> None:
    assert number(PerItem(np.array([1.0, 0.0]), weight_N=np.array([3.0, 1.0]))) == 0.75
    assert number(PerItem(np.array([1, 2, 40]), median=True)) == 2


def test_no_items_are_no_number() -> None:
    none = {"a": PerItem(np.empty(0))}
    assert math.isnan(numbers(none)["a"]) and intervals(none) == {}


def test_95_percent_of_intervals_hold_the_truth() -> None:
    """Of 400 samples of 100 tosses; the percentile interval is known to fall short by a little."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = intervals({"it": PerItem(rng.random(100) < 0.3)})["it"]
        held += low <= 0.3 <= high
    assert 0.91 <= held / 400 <= 0.98


def test_copies_in_a_cluster_are_no_evidence() -> None:
    """Ten copies of each of 50 items leave the interval as wide as the 50 alone."""
    value_N = np.random.default_rng(1).normal(size=50)
    alone = intervals({"it": PerItem(value_N)})["it"]
    copies = PerItem(np.repeat(value_N, 10), cluster_N=np.repeat(np.arange(50), 10))
    assert intervals({"it": copies})["it"] == pytest.approx(alone)
