"""The order of a mixture: shares in every stretch, whole epochs of every source, changes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.mixed_order import MixedOrder, Weights, floor_sum

seeds = st.integers(0, 2**33)
weights = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5)


def mixed(lengths, of, seed=0, stage=0, **more):
    names = "abcde"
    return MixedOrder(dict(zip(names, lengths)), seed, stage, Weights(dict(zip(names, of)), **more))


@given(
    n=st.integers(0, 60), m=st.integers(1, 60), a=st.integers(0, 99), b=st.integers(-200, 200)
)  # fmt: skip
def test_floor_sum(n, m, a, b):
    assert floor_sum(n, m, a, b) == sum((a * i + b) // m for i in range(n))


@settings(max_examples=50)
@given(of=weights, seed=seeds, stage=st.integers(0, 5), start=st.integers(0, 10**12),
       n=st.integers(1, 2000))  # fmt: skip
def test_any_stretch_holds_the_weights_within_few(of, seed, stage, start, n):
    order = mixed([7] * len(of), of, seed, stage)
    before, after = order.counts(start), order.counts(start + n)
    assert sum(after.values()) - sum(before.values()) == n
    for name, weight in order.weights.of.items():
        share = n * weight / sum(of)
        assert abs(after[name] - before[name] - share) <= 3.5, (name, share)


@settings(max_examples=30)
@given(of=weights, seed=seeds, data=st.data())
def test_counts_are_those_of_the_positions_one_by_one(of, seed, data):
    order = mixed([5] * len(of), of, seed)
    counted: Counter[str] = Counter()
    for position in range(data.draw(st.integers(0, 200))):
        assert order.counts(position) == {name: counted[name] for name in order.records}
        counted[order.source_at(position)] += 1


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    of=st.lists(st.floats(0.1, 1.0), min_size=4, max_size=4),
    seed=seeds,
)
def test_every_epoch_of_every_source_visits_each_of_its_records_once(lengths, of, seed):
    order = mixed(lengths, of[: len(lengths)], seed)
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in order.records}
    for position in range(400):
        seen[order.source_at(position)].append(order(position))
    first = 0
    for name, length in order.records.items():
        whole = len(seen[name]) // length * length
        for i, (epoch, record) in enumerate(seen[name]):
            assert epoch == i // length and first <= record < first + length
        for start in range(0, whole, length):
            records = [record for _, record in seen[name][start : start + length]]
            assert sorted(records) == list(range(first, first + length))
        first += length


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    changes=st.lists(
        st.tuples(st.integers(0, 80), st.lists(st.floats(0.05, 1), min_size=3, max_size=3)),
        max_size=4,
    ),
    seed=seeds,
)
def test_weights_change_without_a_record_lost_or_doubled(lengths, changes, seed):
    """Each source goes on in its own order, whatever the weights; JSON carries all of it."""
    order = mixed(lengths, [1.0, 1.0, 2.0], seed)
    position, seen = 0, {name: [] for name in order.records}
    for stretch, of in [*changes, (60, [1.0, 1.0, 1.0])]:
        for p in range(position, position + stretch):
            seen[order.source_at(p)].append(order(p))
        position += stretch
        order = order.reweighted(position, dict(zip("abc", of)))
        order = MixedOrder(order.records, seed, 0, Weights(**order.weights.plain()))
        assert order.counts(position) == {name: len(found) for name, found in seen.items()}
    for name, found in seen.items():
        alone = mixed(lengths, [float(name == other) for other in "abc"], seed)
        assert found == [alone(i) for i in range(len(found))]


def test_a_change_takes_effect_exactly_where_it_is_said():
    before = mixed([9, 9], [1.0, 0.0])
    after = before.reweighted(7, {"a": 0.0, "b": 1.0})
    assert {before.source_at(p) for p in range(7)} == {"a"}
    assert {after.source_at(p) for p in range(7, 50)} == {"b"}
    assert after(7) == mixed([9, 9], [0.0, 1.0])(0)
    with pytest.raises(ValueError, match="begin at 7"):
        after(6)


def test_frequent_changes_keep_the_shares():
    """Weights that change after every batch of 4, from one value to nearly the same."""
    order = mixed([9, 9], [0.3, 0.7])
    for step in range(1, 200):
        order = order.reweighted(4 * step, {"a": 0.3 + 1e-6 * (step % 2), "b": 0.7})
    assert abs(order.counts(800)["a"] - 240) <= 3


def test_seed_stage_and_name_say_which_order():
    orders = {
        tuple(mixed([50, 50], [1.0, 1.0], seed, stage)(p) for p in range(80))
        for seed in (0, 1, 2**32) for stage in (0, 1)
    }  # fmt: skip
    assert len(orders) == 6
    order = mixed([50, 50], [1.0, 0.0])
    other = mixed([50, 50], [0.0, 1.0])
    assert [order(p)[1] for p in range(50)] != [other(p)[1] - 50 for p in range(50)]
    grown = MixedOrder({"a": 50, "new": 3}, 0, 0, Weights({"a": 1.0, "new": 0.0}))
    assert [order(p) for p in range(120)] == [grown(p) for p in range(120)]


@given(position=st.integers(0, 10**9), seed=seeds)
def test_another_record_in_the_place_of_a_bad_one(position, seed):
    order = mixed([40, 50], [1.0, 1.0], seed)
    low, high = (0, 40) if order.source_at(position) == "a" else (40, 90)
    others = [order.instead(position, attempt) for attempt in range(1, 6)]
    assert all(low <= record < high for record in others)
    assert len(set(others)) > 1
    assert others == [order.instead(position, attempt) for attempt in range(1, 6)]


def test_epochs_of_each_source():
    order = mixed([10, 40], [1.0, 1.0])
    counts = order.counts(100)
    assert order.epochs(100) == {"epoch/a": counts["a"] / 10, "epoch/b": counts["b"] / 40}


@pytest.mark.parametrize(
    "of, said",
    [
        ([1.0], "weights for \\['a'\\], but .* \\['a', 'b'\\]"),
        ([1.0, -1.0], "0 or more"),
        ([0.0, 0.0], "not all of them 0"),
        ([1.0, float("nan")], "0 or more"),
        ([1.0, float("inf")], "0 or more"),
    ],
)
def test_wrong_weights_are_refused(of, said):
    with pytest.raises(InputError, match=said):
        mixed([3, 3], of)


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="'b' of the mixture has no records"):
        mixed([3, 0], [1.0, 1.0])
