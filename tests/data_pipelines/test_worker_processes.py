"""Batches of other processes: the same, in order; whoever is killed is replaced."""

import os
import signal
import subprocess
import sys
import time

import cloudpickle
import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.read_ahead import InParts
from data_pipelines.worker_processes import in_processes as in_processes_by_parts

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import a test


def in_processes(make, *args, **options):
    """Of batches in one part: (step) -> batch."""
    whole = InParts(1, lambda step, k: make(step), lambda parts: parts[0])
    return in_processes_by_parts(whole, *args, **options)


def square(step):
    return {
        "step": step,
        "value": np.full((3, 2), step**2, np.int16),
        "id": np.array(["a"], object),
    }


def test_every_step_in_order():
    for workers, start, stop in [(3, 3, 5), (1, 0, 0), (2, 3, 10)]:
        found = list(in_processes(square, start, stop, workers=workers, threads=2))
        assert [batch["step"] for batch in found] == list(range(start, stop))
        for batch in found:
            np.testing.assert_array_equal(batch["value"], square(batch["step"])["value"])
            assert batch["value"].dtype == np.int16 and batch["id"].tolist() == ["a"]


def test_an_error_comes_when_its_step_does():
    error = InputError("no such thing.")

    def fail(step):
        if step == 3:
            raise error
        return {"step": step}

    found = in_processes(fail, 0, 9, workers=2, threads=1)
    assert [next(found)["step"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=str(error)) as raised:
        next(found)
    assert "in fail" in raised.value.__notes__[-1]


def test_an_error_that_no_pickle_holds_is_told_in_words():
    def fail(step):
        class Odd(Exception):
            def __init__(self, a, b):
                super().__init__(f"{a} and {b}")

        raise Odd(1, 2)

    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        next(in_processes(fail, 0, 1, workers=1, threads=1))


def test_what_is_printed_does_not_stand_among_batches(capfd):
    def talk(step):
        print("hello from a worker", flush=True)
        os.write(1, b"and hello again\n")
        return {"step": step}

    assert [b["step"] for b in in_processes(talk, 0, 3, workers=1, threads=1)] == [0, 1, 2]
    assert "hello from a worker" in capfd.readouterr().err


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def with_pid(step):
    return {"step": step, "pid": os.getpid(), "pixels": np.full(3_000_000, step, np.uint8)}


@pytest.mark.long
@pytest.mark.parametrize("steps_read", [1, 3])
def test_a_killed_worker_is_replaced(steps_read, capfd):
    """Each batch is larger than a pipe, so that the workers are killed in the middle of one."""
    found = in_processes(with_pid, 0, 12, workers=2, threads=1)
    first = [next(found) for _ in range(steps_read)]
    time.sleep(0.2)
    for pid in {batch["pid"] for batch in first}:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    rest = list(found)
    assert time.monotonic() - began < 60
    assert [batch["step"] for batch in [*first, *rest]] == list(range(12))
    assert all((batch["pixels"] == batch["step"]).all() for batch in rest)
    assert {batch["pid"] for batch in rest} - {batch["pid"] for batch in first}
    told = capfd.readouterr().err
    assert "which loads data, was killed (SIGKILL); it is started again." in told


@pytest.mark.long
def test_one_that_is_killed_again_and_again_ends_the_run():
    def suicide(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"step": step}

    found = in_processes(suicide, 0, 9, workers=1, threads=1)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"was killed \(SIGKILL\), and so was the one after it"):
        list(found)
    assert time.monotonic() - began < 60


@pytest.mark.long
def test_none_is_left_behind():
    found = in_processes(with_pid, 0, 100, workers=2, threads=1)
    pids = {next(found)["pid"] for _ in range(2)}
    assert len(pids) == 2 and all(map(alive, pids))
    found.close()
    assert not any(map(alive, pids))


PARENT = """
import os, sys, time
sys.path.insert(0, {root!r})
from data_pipelines.read_ahead import InParts
from data_pipelines.worker_processes import in_processes

def make(step, part):
    return {{"pid": os.getpid(), "much": bytes(10_000_000)}}

batches = InParts(1, make, lambda parts: parts[0])
found = in_processes(batches, 0, 100, workers=2, threads=1)
print(next(found)["pid"], next(found)["pid"], flush=True)
time.sleep(60)
"""


@pytest.mark.long
def test_none_outlives_a_parent_that_is_killed():
    root = os.getcwd()
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(map(alive, pids)):
            return
        time.sleep(0.1)
    raise AssertionError("workers without a parent")
