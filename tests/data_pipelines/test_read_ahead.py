"""Threads make what is asked for later, in order."""

import threading
import time
import warnings

import pytest
from PIL import Image

from data_pipelines.read_ahead import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("steps", [range(0), range(5, 50, 3), range(7, 8)])
def test_every_step_in_order(steps, threads):
    def make(step):
        time.sleep(0.001 * (step % 3))  # some are ready before those in front of them
        return {"step": step}

    assert list(read_ahead(make, steps, threads)) == [{"step": step} for step in steps]


def test_threads_run_ahead_by_so_many():
    made, enough = [], threading.Event()

    def make(step):
        made.append(step)
        if len(made) > 4 * 2:
            enough.set()
        return {"step": step}

    batches = read_ahead(make, range(1000), 2)
    next(batches)
    assert enough.wait(10)
    time.sleep(0.1)
    assert len(made) <= 4 * 2 + 2 + 1
    batches.close()


def test_bombs_are_errors_from_then_on():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(read_ahead(lambda step: {}, range(1), 1))
        with pytest.raises(Image.DecompressionBombWarning):
            warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)
