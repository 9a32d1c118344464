"""How long devices had nothing to do for want of a batch, in one process and among several."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.stalls import Stalls, by_process, gathered, stall, straggler


@pytest.mark.parametrize(
    ("free", "seconds"),
    [
        (None, 3.0),  # the first batch: nothing was running
        (1.0, 3.0),  # idle before it was asked for
        (6.0, 2.0),  # busy for the first second of the wait
        (8.0, 0.0),
        (9.0, 0.0),  # still busy when it came: nothing was lost
    ],
)
def test_a_wait_counts_from_when_the_devices_are_free(free: float | None, seconds: float) -> None:
    assert stall(5.0, 8.0, free) == seconds


def test_waits_are_added_up_once() -> None:
    def slow() -> Iterator[int]:
        for i in range(3):
            time.sleep(0.05)
            yield i

    stalls, seen = Stalls(), []
    began = time.perf_counter()
    for i in stalls.watched(slow()):
        seen.append(i)
        stalls.stepped(jax.block_until_ready(jnp.float32(i)))
    took = time.perf_counter() - began
    assert seen == [0, 1, 2]
    assert 0.14 < stalls.seconds() <= took
    assert stalls.seconds() == 0
    stalls.close()


def test_a_busy_device_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step ends long after the next batch is there."""
    monkeypatch.setattr("mmcl.stalls._end", lambda result: time.perf_counter() + 60)
    stalls = Stalls()
    for i in stalls.watched(iter(range(3))):
        if i == 0:
            stalls.seconds()  # of the first batch
        stalls.stepped(jnp.float32(0))
    assert stalls.seconds() == 0
    stalls.close()


def test_one_process_is_told_of_alone() -> None:
    assert gathered(0.25, 7.0).tolist() == [[0.25, 7.0]]
    assert by_process([0.25], [7.0]) == {"data_wait": 0.25}
    assert straggler([0.9]) == (None, "")


def test_of_several_processes_the_extremes_and_the_median_are_told() -> None:
    wait_P, rate_P = [0.1, 0.0, 0.4, 0.2, 0.05], [8.0, 10.0, 7.0, 9.0, 8.5]
    assert by_process(wait_P, rate_P) == {
        "data_wait": 0.4,
        "data_wait/median": 0.1,
        "data_wait/least": 0.0,
        "examples_per_s/slowest": 7.0,
        "examples_per_s/median": 8.5,
        "examples_per_s/fastest": 10.0,
    }


@pytest.mark.parametrize(
    ("wait_P", "late"),
    [
        ([0.01, 0.02, 0.0, 0.4], 3),
        ([0.3, 0.15], 0),
        ([0.3, 0.16], None),  # both are slow
        ([0.09, 0.0], None),  # not worth a word
        ([0.0, 0.0], None),
    ],
)
def test_a_straggler_is_named_where_there_clearly_is_one(
    wait_P: list[float], late: int | None
) -> None:
    found, line = straggler(np.array(wait_P))
    assert found == late
    if late == 3:
        assert line == "Process 3 waits 40% of its time for data, the others for it."
