"""Threads make what is asked for later, in order."""

import threading
import time
import warnings

import pytest
from PIL import Image

from data_pipelines.read_ahead import InParts, read_ahead


def joined(parts):
    return {"parts": list(parts)}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("steps", [range(0), range(5, 50, 3), range(7, 8)])
def test_every_step_in_order(steps, parts, threads):
    def part(step, k):
        time.sleep(0.001 * ((step + k) % 3))  # some are ready before those in front of them
        return step, k

    made = list(read_ahead(InParts(parts, part, joined), steps, threads))
    assert made == [{"parts": [(step, k) for k in range(parts)]} for step in steps]


@pytest.mark.parametrize("parts, threads, ahead", [(1, 2, 4), (10, 2, 20)])
def test_no_more_than_two_batches_or_two_parts_a_thread_lie_ready(parts, threads, ahead):
    made, enough = [], threading.Event()

    def part(step, k):
        made.append((step, k))
        if len(made) > ahead:
            enough.set()
        return step, k

    batches = read_ahead(InParts(parts, part, joined), range(1000), threads)
    next(batches)
    assert enough.wait(10)
    time.sleep(0.1)
    assert len(made) <= parts + ahead + threads
    batches.close()


def test_bombs_are_errors_from_then_on():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(read_ahead(InParts(1, lambda step, k: k, joined), range(1), 1))
        with pytest.raises(Image.DecompressionBombWarning):
            warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)
