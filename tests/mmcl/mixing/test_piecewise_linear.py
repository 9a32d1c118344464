"""Weights by a plan."""

from typing import Any

import pytest

from data_pipelines.errors import InputError
from mmcl.mixing.moment import Moment
from mmcl.mixing.piecewise_linear import reweigh


def plan(began: dict[str, float], every: int, **options: Any) -> dict[int, dict[str, float]]:
    """Step -> weights, as a run asks for them."""
    found, state = {}, None
    weights: Any = began
    for step in range(every, 41, every):
        moment = Moment(step, 40, weights, [], None)  # type: ignore[arg-type]
        weights, state = reweigh(moment, state, **options)
        found[step] = dict(weights)
    return found


def test_straight_lines_between_shares() -> None:
    options = {"at": [10, 30], "weights": [{"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 5.0}]}
    found = plan({"a": 8.0, "b": 2.0}, 5, **options)
    shares = {5: 0.65, 10: 0.5, 15: 0.375, 20: 0.25, 25: 0.125, 30: 0.0, 35: 0.0, 40: 0.0}
    assert found.keys() == shares.keys()
    for step, share in shares.items():
        assert found[step] == pytest.approx({"a": share, "b": 1 - share})


def test_how_often_it_is_asked_changes_nothing() -> None:
    options = {"at": [20, 33], "weights": [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}]}
    often, seldom = (plan({"a": 1.0, "b": 1.0}, every, **options) for every in (1, 8))
    assert all(often[step] == seldom[step] for step in seldom)


@pytest.mark.parametrize(
    "at, weights, said",
    [
        ([], [], "at=\\[\\]"),
        ([0], [{"a": 1, "b": 1}], "above 0"),
        ([5, 5], [{"a": 1, "b": 1}] * 2, "rising steps"),
        ([5], [], "each with weights"),
        ([5], [{"a": 1}], "\\['a'\\] should be the sources \\['a', 'b'\\]"),
        ([5], [{"a": 0, "b": 0}], "not all be 0"),
    ],
)
def test_a_wrong_plan_is_refused(at: Any, weights: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan({"a": 1.0, "b": 1.0}, 5, at=at, weights=weights)
