"""Signals are noted, told, and asked for."""

import signal

import pytest

from mmcl.stops import Stops


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_until_it_is_asked_for(number: signal.Signals) -> None:
    told: list[str] = []
    before = signal.getsignal(number)
    with Stops(told.append) as stops:
        assert not stops.now() and stops.by is None
        signal.raise_signal(number)
        assert stops.now() and stops.now() and stops.by is number
    assert signal.getsignal(number) is before
    (line,) = told
    assert "topping after this step" in line
    assert ("Ctrl-C again" in line) == (number is signal.SIGINT)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_it_stops_at_once(first: signal.Signals) -> None:
    told: list[str] = []
    with Stops(told.append), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)
    assert len(told) == 1


def test_further_sigterms_change_nothing() -> None:
    """Launchers send more than one."""
    told: list[str] = []
    with Stops(told.append) as stops:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stops.by is signal.SIGTERM
    assert len(told) == 1
