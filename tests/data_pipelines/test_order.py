"""The order of records: a permutation in every epoch, computed for one position alone."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.order import Order

seeds = st.integers(0, 2**40)
stages = st.integers(0, 20)


def epoch(order: Order, number: int) -> list[int]:
    n = order.records
    return [order(position)[1] for position in range(number * n, (number + 1) * n)]


@settings(max_examples=60, deadline=None)
@given(records=st.integers(1, 500), seed=seeds, stage=stages, number=st.integers(0, 10**6))
def test_every_epoch_visits_every_record_once(records, seed, stage, number):
    assert sorted(epoch(Order(records, seed, stage), number)) == list(range(records))


@pytest.mark.parametrize("records", [2**16 - 1, 2**16, 2**16 + 1])
def test_so_does_one_at_the_border_of_a_power_of_two(records):
    seen = np.zeros(records, int)
    order = Order(records, seed=3)
    for position in range(records):
        seen[order(position)[1]] += 1
    assert (seen == 1).all()


@given(records=st.integers(1, 500), seed=seeds, position=st.integers(0, 10**9))
def test_a_position_says_its_epoch_and_is_asked_in_any_order(records, seed, position):
    order = Order(records, seed)
    later = order(position + records)
    found = order(position)
    assert (found[0], later[0]) == (position // records, position // records + 1)
    assert found == Order(records, seed)(position)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, stage=stages, number=st.integers(0, 1000))
def test_epochs_seeds_and_stages_differ(seed, stage, number):
    this = epoch(Order(100, seed, stage), number)
    assert this != epoch(Order(100, seed, stage), number + 1)
    assert this != epoch(Order(100, seed + 1, stage), number)
    assert this != epoch(Order(100, seed, stage + 1), number)


def test_seed_stage_and_epoch_do_not_stand_for_each_other():
    keys = [(a, b, c) for a in (0, 1, 2, 2**32) for b in (0, 1, 2) for c in (0, 1, 2)]
    orders = {tuple(epoch(Order(100, a, b), c)) for a, b, c in keys}
    assert len(orders) == len(keys)


def test_all_orders_of_few_records_are_as_likely():
    """Chi-squared of the 24 orders of 4 records over 2,400 seeds: 23 degrees of freedom."""
    counts = Counter(tuple(epoch(Order(4, seed), 0)) for seed in range(2400))
    assert len(counts) == math.factorial(4)
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 60  # p = 4e-5


@pytest.mark.parametrize("records", [4096, 5000])
def test_neighbours_are_parted(records):
    """Records i and i + k of the source fall into one batch as often as any two.

    4,096 fills the domain of the permutation, so that nothing is walked over.
    """
    batches, apart = records // 64, (1, 2, 16, 64, 256)
    together = dict.fromkeys(apart, 0)
    for seed in range(8):
        batch = np.argsort(epoch(Order(records, seed), 0)) // 64
        for k in apart:
            together[k] += (batch[:-k] == batch[k:]).sum()
    for k, count in together.items():
        expected = 8 * (records - k) / batches
        assert abs(count - expected) < 5 * np.sqrt(expected), k


def test_a_billion_records_take_no_memory():
    tracemalloc.start()
    order = Order(10**9, seed=0)
    records = {order(position)[1] for position in range(0, 10**9, 10**6)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(records) == 1000
    assert max(records) > 0.99 * 10**9
    assert peak < 2**20


def test_no_records_are_refused():
    with pytest.raises(InputError, match="no records"):
        Order(0, seed=0)
