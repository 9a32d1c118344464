"""Batches are a function of (seed, stage, step): whoever loads them, from wherever."""

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.loader import eval_batches, numeric, train_batches
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline


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
    whole = batches(records, local * processes, start, start + 3)
    slices = [
        batches(records, local * processes, start, start + 3, process=p, processes=processes)
        for p in range(processes)
    ]
    for step, batch in enumerate(whole):
        parts = [one[step] for one in slices]
        for key in ("id", "index", "concept"):
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), batch[key])
        values = np.concatenate([p["number"]["value"] for p in parts])
        np.testing.assert_array_equal(values, batch["number"]["value"])


def test_slices_must_be_equal():
    with pytest.raises(ValueError, match="10 .* 4"):
        batches(5, 10, 0, 1, process=0, processes=4)


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


def test_numeric_leaves_out_what_is_only_shown():
    batch = next(eval_batches(Source(2), Pipeline({"number": [augment]}), batch_size=2))
    kept = numeric(batch)
    assert kept.keys() == {"index", "present", "number", "concept"}
    assert kept["number"].keys() == {"value"}
    assert kept["number"]["value"] is batch["number"]["value"]
    assert "raw" in batch["number"] and "id" in batch
