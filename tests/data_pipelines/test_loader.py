"""Batches are a function of (seed, stage, step): whoever loads them, from wherever."""

import itertools
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.loader import eval_batches, numeric, train_batches
from data_pipelines.mixed_order import MixedOrder, Weights
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import a test


class Source:
    label_names = {"concept": []}

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert 0 <= index < self.length
        return {"id": f"record-{index}", "number": index, "concept": index % 7}


def augment(value, *, rng, train):
    noise = rng.integers(1, 2**62) if train else 0
    return {"value": np.array([value, noise]), "raw": str(value)}


def batches(records, batch_size, start, stop, *, seed=0, stage=0, threads=1, **slices):
    source = Source(records)
    return list(
        train_batches(
            source,
            Pipeline({"number": [augment]}, source),
            Order(records, seed, stage),
            batch_size=batch_size,
            start=start,
            stop=stop,
            threads=threads,
            **slices,
        )
    )


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        np.testing.assert_array_equal(x["number"]["value"], y["number"]["value"])
        for key in ("id", "index", "concept"):
            np.testing.assert_array_equal(x[key], y[key])


def slices(batch_size, processes):
    """The places of each of so many processes."""
    local = batch_size // processes
    return [range(p * local, (p + 1) * local) for p in range(processes)]


@settings(max_examples=25, deadline=None)
@given(
    records=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    start=st.integers(0, 15),
    steps=st.integers(0, 6),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**33),
)
def test_a_run_goes_on_where_it_stopped(records, batch_size, start, steps, threads, seed):
    whole = batches(records, batch_size, 0, start + steps, seed=seed)
    assert len(whole) == start + steps
    rest = batches(records, batch_size, start, start + steps, seed=seed, threads=threads)
    assert_same(rest, whole[start:])


@settings(max_examples=15, deadline=None)
@given(
    records=st.integers(1, 40),
    local=st.integers(1, 4),
    processes=st.sampled_from([2, 4]),
    start=st.integers(0, 5),
)
def test_processes_hold_slices_of_the_batch(records, local, processes, start):
    """Contiguous ones, and such as the devices of a pod may hold."""
    size = local * processes
    whole = batches(records, size, start, start + 3)
    for places in (slices(size, processes), [range(p, size, processes) for p in range(processes)]):
        parts = [batches(records, size, start, start + 3, places=held) for held in places]
        for held, part in zip(places, parts):
            for batch, mine in zip(whole, part, strict=True):
                for key in ("id", "index", "concept"):
                    np.testing.assert_array_equal(mine[key], batch[key][held])
                values = batch["number"]["value"][held]
                np.testing.assert_array_equal(mine["number"]["value"], values)


def test_batches_are_those_of_the_order():
    """Epochs of 10 records end inside batches of 4."""
    order = Order(10, seed=5, stage=1)
    want = [order(position)[1] for position in range(40)]
    found = batches(10, 4, 0, 10, seed=5, stage=1)
    assert [i for batch in found for i in batch["index"]] == want
    assert [i for batch in found for i in batch["id"]] == [f"record-{i}" for i in want]
    assert [i for batch in found for i in batch["concept"]] == [i % 7 for i in want]
    for epoch in range(4):
        assert sorted(want[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert found[0]["index"].dtype == np.int32
    assert found[0]["present"]["number"].tolist() == [True] * 4


def test_chance_is_keyed_by_seed_stage_epoch_and_record():
    seen = {}
    for seed, stage in itertools.product((0, 1), (0, 1)):
        for batch_size in (4, 6):  # records then stand at other places of other batches
            found = batches(10, batch_size, 0, 60 // batch_size, seed=seed, stage=stage)
            values = np.concatenate([batch["number"]["value"] for batch in found])
            for position, (record, noise) in enumerate(values.tolist()):
                key = (seed, stage, position // 10, record)
                assert seen.setdefault(key, noise) == noise
    assert len(seen) == 2 * 2 * 6 * 10
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("error", [InputError, ZeroDivisionError])
def test_an_error_reaches_the_one_who_asks(error):
    def fail(value, *, rng, train):
        if value == 3:
            raise error("three")
        return {"value": value}

    pipeline = Pipeline({"number": [fail]}, Source(9))
    for found in (
        eval_batches(Source(9), pipeline, batch_size=2),
        train_batches(Source(9), pipeline, Order(9, 0), batch_size=3, start=0, stop=3),
    ):
        with pytest.raises(error) as raised:
            list(found)
        told = " ".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
        assert "ecord 'record-3'" in told and "number" in told


def test_loading_runs_ahead_in_threads():
    names = set()

    def slow(value, *, rng, train):
        names.add(threading.current_thread().name)
        time.sleep(0.01)
        return {"value": value}

    pipeline = Pipeline({"number": [slow]}, Source(9))
    found = train_batches(
        Source(9), pipeline, Order(9, 0), batch_size=1, start=0, stop=100, threads=3
    )
    next(found)
    assert len(names) > 1
    assert threading.main_thread().name not in names


@pytest.mark.parametrize(("records", "batch_size"), [(10, 4), (8, 4), (3, 4), (1, 1), (5, 2)])
def test_evaluation_sees_every_record_once_in_order(records, batch_size):
    source = Source(records)
    runs = [
        list(
            eval_batches(
                source,
                Pipeline({"number": [augment]}, source),
                batch_size=batch_size,
                threads=threads,
            )
        )
        for threads in (1, 3)
    ]
    assert_same(*runs)
    assert all(batch["index"].shape == (batch_size,) for batch in runs[0])
    index = np.concatenate([batch["index"] for batch in runs[0]])
    assert index[:records].tolist() == list(range(records))
    assert index[records:].tolist() == [records - 1] * (len(index) - records)
    assert len(index) - records < batch_size
    value = np.concatenate([batch["number"]["value"] for batch in runs[0]])
    assert value.tolist() == [[i, 0] for i in index]


class Bad(Source):
    """Of its records some cannot be read, some not used."""

    def __init__(self, length, unreadable=(), unfit=()):
        super().__init__(length)
        self.unreadable, self.unfit = set(unreadable), set(unfit)

    def __getitem__(self, index):
        if index in self.unreadable:
            raise OSError("image file is truncated")
        record = super().__getitem__(index)
        return record | {"number": -1} if index in self.unfit else record


def picky(value, *, rng, train):
    if value == -1:
        raise Fault("odd", "minus one")
    return augment(value, rng=rng, train=train)


def bad_batches(source, order, start, stop, **more):
    pipeline = Pipeline({"number": [picky]}, source)
    return list(train_batches(source, pipeline, order, start=start, stop=stop, **more))


def rejects(found):
    return [reject for batch in found for reject in batch["rejected"]]


@settings(max_examples=20)
@given(
    records=st.integers(4, 30),
    bad=st.sets(st.integers(0, 29), max_size=3),
    local=st.integers(1, 3),
    processes=st.sampled_from([1, 2, 3]),
    killed=st.integers(0, 6),
    seed=st.integers(0, 2**33),
)
def test_others_stand_in_the_place_of_bad_records(records, bad, local, processes, killed, seed):
    """The same ones whoever loads them; a resume with other processes goes on with the same."""
    source = Bad(records, unreadable=[i for i in bad if i % 2], unfit=[i for i in bad if not i % 2])
    order, batch_size, steps = Order(records, seed), local * processes, 7
    whole = bad_batches(source, order, 0, steps, batch_size=batch_size)
    before = bad_batches(source, order, 0, killed, batch_size=batch_size)
    after = [
        bad_batches(source, order, killed, steps, batch_size=batch_size, places=held, threads=2)
        for held in slices(batch_size, processes)
    ]
    joined = [{"index": np.concatenate([part["index"] for part in parts])} for parts in zip(*after)]
    seen = [i for batch in [*before, *joined] for i in batch["index"].tolist()]
    assert seen == [i for batch in whole for i in batch["index"].tolist()]
    for position, record in enumerate(seen):
        ours = order(position)[1]
        others = (order.instead(position, attempt) for attempt in range(1, 32))
        assert record == (ours if ours not in bad else next(i for i in others if i not in bad))
    told = rejects(before) + [r for part in after for r in rejects(part)]
    key = lambda reject: reject.position  # noqa: E731
    assert sorted(told, key=key) == sorted(rejects(whole), key=key)
    assert [(r.position, r.index, r.epoch) for r in sorted(told, key=key)] == [
        (position, order(position)[1], order(position)[0])
        for position in range(steps * batch_size)
        if order(position)[1] in bad
    ]
    assert {(r.id, r.kind) for r in told} <= {(None, "truncated")} | {
        (f"record-{i}", "odd") for i in bad
    }


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=3),
    local=st.integers(1, 3),
    processes=st.sampled_from([1, 2]),
    changed=st.integers(1, 5),
    killed=st.integers(0, 8),
    seed=st.integers(0, 2**33),
)
def test_a_mixture_goes_on_where_it_stopped(lengths, local, processes, changed, killed, seed):
    """Weights change after some step; killed before or after, with other processes: the same."""
    records = dict(zip("abc", lengths))
    source, steps = Source(sum(lengths)), 8
    even, odd = (dict(zip("abc", of)) for of in ([1.0] * 3, [0.1, 0.9, 0.5]))
    even, odd = ({name: of[name] for name in records} for of in (even, odd))
    before = MixedOrder(records, seed, 0, Weights(even))
    batch_size = local * processes
    after = before.reweighted(changed * batch_size, odd)

    def run(start, stop, places=None):
        parts = [(before, start, min(stop, changed)), (after, max(start, changed), stop)]
        return [
            batch
            for order, begin, end in parts
            if begin < end
            for batch in bad_batches(
                source, order, begin, end, batch_size=batch_size, places=places
            )
        ]

    whole = [batch["number"]["value"].tolist() for batch in run(0, steps)]
    resumed = [batch["number"]["value"].tolist() for batch in run(0, killed)]
    runs = [run(killed, steps, held) for held in slices(batch_size, processes)]
    for parts in zip(*runs):
        resumed.append(np.concatenate([part["number"]["value"] for part in parts]).tolist())
    assert resumed == whole
    noise = [tuple(pair) for batch in whole for pair in batch]
    assert len(set(noise)) == len(noise)  # nothing comes twice in an epoch, nor alike in two


def test_where_nothing_can_be_used_the_run_ends():
    source = Bad(50, unfit=range(1, 50))
    with pytest.raises(
        InputError, match=r"32 records in turn .*record-\d+, odd: number: minus one"
    ):
        bad_batches(source, Order(50, 0), 0, 9, batch_size=2)


def test_records_unlike_the_first_are_rejected():
    def cut(value, *, rng, train):
        return {"value": np.zeros(3 if value == 4 else 2, np.float64 if value == 6 else np.float32)}

    source = Source(9)
    pipeline = Pipeline({"number": [cut]}, source)
    found = list(train_batches(source, pipeline, Order(9, 0), batch_size=3, start=0, stop=3))
    assert {(r.id, r.kind) for r in rejects(found)} == {
        ("record-4", "wrong_shape"), ("record-6", "wrong_shape"),
    }  # fmt: skip
    assert all(batch["number"]["value"].shape == (3, 2) for batch in found)


def test_workers_load_the_same_and_tell_of_rejects():
    source = Bad(20, unreadable=[3], unfit=[8])
    order = Order(20, 1)
    alone = bad_batches(source, order, 2, 7, batch_size=6)
    others = bad_batches(source, order, 2, 7, batch_size=6, workers=2, threads=2)
    assert_same(alone, others)
    assert rejects(alone) == rejects(others) != []


@pytest.mark.parametrize("bad", [[0], [9], [2, 3, 4], [4, 5, 6, 7], range(8, 10), range(10)])
def test_evaluation_tells_which_records_it_lacks(bad):
    source = Bad(10, unreadable=[i for i in bad if i % 2], unfit=[i for i in bad if not i % 2])
    pipeline = Pipeline({"number": [picky]}, Source(10))
    found = list(eval_batches(source, pipeline, batch_size=4))
    assert [reject.index for reject in rejects(found)] == list(bad)
    for number, batch in enumerate(found):
        here = range(4 * number, min(4 * number + 4, 10))
        if set(here) <= set(bad):
            assert batch.keys() == {"rejected"}
            continue
        assert batch["index"].shape == (4,)
        for row, record in enumerate(here):
            if record not in bad:
                assert batch["index"][row] == record


def test_numeric_leaves_out_what_is_only_shown():
    batch = next(eval_batches(Source(2), Pipeline({"number": [augment]}), batch_size=2))
    kept = numeric(batch)
    assert kept.keys() == {"index", "present", "number", "concept"}
    assert kept["number"].keys() == {"value"}
    assert kept["number"]["value"] is batch["number"]["value"]
    assert "raw" in batch["number"] and "id" in batch
