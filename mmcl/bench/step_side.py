"""One side of `mmcl bench step --against open_clip`, in a process of its own, on the CPU.

    python -m mmcl.bench.step_side SIDE TASK

makes a first step of what TASK (JSON) says, then as many as each line of JSON asks for. Both sides
have their batch in memory: how batches are loaded is what `mmcl bench data` measures.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.bench.answering import Answering, answer
from mmcl.huge_pages import without_them

Run = Callable[[int], None]  # makes so many steps


class Task(NamedTuple):
    """What is trained.

    Attributes:
        config: of the experiment.
        file: its file, beside which modules of its own may lie; None: it has none.
        sizes: `open_clip_model.Sizes`, for the other side.
        threads: that the other side computes with; XLA takes all processors of its process.
    """

    config: dict[str, Any]
    file: str | None
    sizes: dict[str, Any]
    threads: int


class Speed(NamedTuple):
    """Of one step."""

    wall_s: float
    cpu_s: float  # of all threads
    flops: float  # of products


class StepSide(Answering):
    """The near end of such a process."""

    def __init__(self, name: str, task: Task):
        words = (name, json.dumps(task._asdict()))
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        if name != "ours":
            environment = without_them(environment)
        super().__init__(__name__, *words, env=environment)

    def run(self, steps: int) -> Speed:
        """Make so many steps; none: until it is ready.

        Raises:
            Failed: the process ended.
        """
        return Speed(*self.ask(steps))


def ours(task: Task) -> tuple[Run, float]:
    """The step of `mmcl train` on the stage's first batch, and its flops."""
    import jax

    from mmcl import config, experiment
    from mmcl.bench.step import Loop, chained, flops, on
    from mmcl.built_stage import build
    from mmcl.mesh import data_mesh

    if task.file is not None:
        config.importable(Path(task.file))
    mesh = data_mesh(jax.devices()[:1])
    built = build(experiment.stages(task.config)[0], mesh)
    with jax.set_mesh(mesh):
        loop = Loop(built)
        loop.run(1)
        loop.close()
        counted = flops(built, loop.state, loop.batch)
    step, state = on(built, loop.batch), loop.state
    del loop

    def run(steps: int) -> None:
        nonlocal state
        with jax.set_mesh(mesh):
            _, state = chained(step, state, steps)

    return run, counted


def open_clip(task: Task) -> tuple[Run, float]:
    """The step of open_clip's model of the same sizes, and its flops."""
    from mmcl.bench.open_clip_model import Sizes, trained

    model = trained(Sizes(**task.sizes), task.threads)

    def run(steps: int) -> None:
        for _ in range(steps):
            model.step()

    return run, model.flops


SIDES = {"ours": ours, "open_clip": open_clip}


def _main(name: str, words: str) -> Callable[[int], Speed]:
    run, flops = SIDES[name](Task(**json.loads(words)))

    def timed(steps: int) -> Speed:
        if steps:
            run(1)  # caches and free memory are those of whoever ran last
        wall, cpu = time.perf_counter(), time.process_time()
        run(steps)
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        each = max(1, steps)
        return Speed(wall_s / each, cpu_s / each, flops)

    return timed


if __name__ == "__main__":
    answer(lambda: _main(*sys.argv[1:]))
