"""What a rule is shown, by way of a whole run: tests/mmcl/test_feed.py."""

import dataclasses

import pytest

from mmcl.mixing.moment import Mixing, Moment


def test_a_rule_cannot_change_what_it_is_shown() -> None:
    moment = Moment(3, 9, {"a": 1.0}, [], None)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        moment.step = 4  # type: ignore[misc]
    mixing = Mixing(3, lambda moment, state: (moment.weights, state))
    assert mixing.reweigh(moment, {"n": 1}) == ({"a": 1.0}, {"n": 1})
