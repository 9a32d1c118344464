"""One side of `mmcl bench data` in a process of its own, which is asked again and again.

    python -m mmcl.bench.side SIDE TASK

opens what TASK (JSON) says, then reads a line of JSON for each run and answers with one.
"""

import functools
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.files import listed
from data_pipelines.loader import train_batches
from data_pipelines.open_source import open_source
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline
from data_pipelines.transforms import augment, crop
from mmcl.bench import pillow
from mmcl.bench.answering import Answering, answer

SKIPPED = 8  # batches at the beginning of a run, or a quarter of a short one, that are not timed
BUFFER = 500  # records among which the other side shuffles


class Task(NamedTuple):
    """What a side loads."""

    section: dict[str, Any]  # of a source; of the webdataset source for the other side
    decode: str  # "full": all of a file, by Pillow; "best": as quickly as that side can
    size: int
    batch: int


class Setup(NamedTuple):
    """How many processes load, and how many threads in each, or in this one if there is none."""

    workers: int
    threads: int = 1


class Speed(NamedTuple):
    """Of one run, between the first batches and the last."""

    records_per_s: float
    cpu_ms: float  # processor time of one record, all processes and threads


class Side(Answering):
    """The near end of such a process."""

    def __init__(self, name: str, task: Task):
        super().__init__(__name__, name, json.dumps(task._asdict()))

    def run(self, setup: Setup, batches: int) -> Speed:
        """Load so many batches, others than the time before.

        Raises:
            Failed: the process ended.
        """
        return Speed(*self.ask([*setup, batches]))


def ours(task: Task) -> Callable[[Setup, int, int], Iterator[Any]]:
    """(setup, first batch, batches) -> batches by mmcl."""
    source = open_source(task.section)
    if task.decode == "full":
        transforms: list[Any] = [functools.partial(pillow.random_resized, size=task.size)]
    else:
        transforms = [functools.partial(crop.random_resized, size=task.size), augment.flip]
    pipeline = Pipeline({"image": transforms, "text": [_same]}, source)
    order = Order(len(source), seed=0)

    def load(setup: Setup, first: int, batches: int) -> Iterator[Any]:
        return train_batches(
            source,
            pipeline,
            order,
            batch_size=task.batch,
            start=first,
            stop=first + batches,
            threads=setup.threads,
            workers=setup.workers,
        )

    return load


def webdataset(task: Task) -> Callable[[Setup, int, int], Iterator[Any]]:
    """The same by torch's DataLoader with the webdataset library."""
    torch = importlib.import_module("torch")
    wds = importlib.import_module("webdataset")
    torch.set_num_threads(1)  # else threads for the copying of batches cost more than they bring
    tars = listed(task.section["files"])
    draft = task.decode == "best"

    def example(raw: dict[str, Any]) -> tuple[Any, str]:
        return torch.from_numpy(_pixels(raw["jpg"], task.size, draft)), raw["txt"].decode()

    def load(setup: Setup, first: int, batches: int) -> Iterator[Any]:
        loaders = max(1, setup.workers)
        data = wds.WebDataset(
            tars, resampled=True, shardshuffle=False, seed=first, empty_check=False
        )
        data = data.shuffle(BUFFER, initial=BUFFER // 5).map(example)
        data = data.batched(task.batch, partial=False).with_epoch(batches // loaders)
        return iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=setup.workers))

    return load


SIDES = {"ours": ours, "webdataset": webdataset}


def timed(batches: Iterator[Any], expected: int, batch: int) -> Speed:
    """How quickly they come.

    Raises:
        ValueError: they are not as many as expected, or not so large.
    """
    skipped = min(SKIPPED, expected // 4)
    before, begun, found = _cpu_s(), time.perf_counter(), 0
    for made in batches:
        found += 1
        length = len(made["image"] if isinstance(made, dict) else made[0])
        if length != batch:
            raise ValueError(f"a batch of {length} records in place of {batch}")
        if found == skipped:
            begun = time.perf_counter()
    wall = time.perf_counter() - begun
    if found != expected:
        raise ValueError(f"{found} batches in place of {expected}")
    cpu = _cpu_s() - before
    return Speed((found - skipped) * batch / wall, 1000 * cpu / (found * batch))


def _same(value: str, *, rng: np.random.Generator, train: bool) -> str:
    return value


@functools.cache
def _rng(process: int) -> np.random.Generator:
    return np.random.default_rng(process)


def _pixels(jpeg: bytes, size: int, draft: bool) -> np.ndarray:
    rng = _rng(os.getpid())
    return pillow.random_resized(jpeg, rng=rng, train=True, size=size, draft=draft).copy()


def _cpu_s() -> float:
    """Of this process and of those of its children that have ended."""
    spent = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(of.ru_utime + of.ru_stime for of in spent)


def _main(name: str, words: str) -> Callable[[Any], Speed]:
    task = Task(**json.loads(words))
    load, first = SIDES[name](task), 0

    def run(question: Any) -> Speed:
        nonlocal first
        *setup, batches = question
        speed = timed(load(Setup(*setup), first, batches), batches, task.batch)
        first += batches
        return speed

    return run


if __name__ == "__main__":
    answer(lambda: _main(*sys.argv[1:]))
