"""`mmcl bench step --against open_clip`: our training step beside that of the same sizes there."""

import os
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import experiment
from mmcl.bench import open_clip
from mmcl.bench.open_clip_model import sizes
from mmcl.bench.row import Failed
from mmcl.bench.step_side import Speed, StepSide, Task
from mmcl.built_stage import build
from mmcl.mesh import data_mesh


class Beside(NamedTuple):
    """Medians over turns, of one step on the CPU, in float32; flops are those of products."""

    experiment: str
    batch_size: int
    threads: int
    turns: int
    step_s: float
    cpu_s: float  # of all threads: steadier on a busy machine
    flops: float
    baseline_step_s: float
    baseline_cpu_s: float
    baseline_flops: float
    times: float  # steps a second, ours over theirs
    cpu_times: float  # CPU seconds, theirs over ours


def beside(name: str, config: Mapping[str, Any], turns: int) -> Beside:
    """Train both, two steps in turn, of which the second counts: what else the machine does hits
    both, and the first gets back the caches and the memory that the other had.

    Args:
        name: of the experiment, `FILE[:ARG]`; "" where there is no file.

    Raises:
        InputError: open_clip is not installed, or has no model of these sizes; or a side failed.
    """
    lacking = open_clip.missing()
    if lacking:
        raise InputError(
            f"--against: no {' and no '.join(lacking)} to compare with; {open_clip.INSTALL}"
        )
    stage = experiment.stages(dict(config))[0]
    built = build(stage, data_mesh(jax.devices()[:1]))
    threads = _processors()
    file = str(configs.experiment_file(configs.split(name)[0])) if name else None
    task = Task(dict(config), file, sizes(stage.settings, built.example)._asdict(), threads)
    with StepSide("ours", task) as ours:
        _run("mmcl", ours, 0)  # ready before the other begins: either may need most of the memory
        with StepSide("open_clip", task) as theirs:
            _run("open_clip", theirs, 0)
            both = [(_run("mmcl", ours, 1), _run("open_clip", theirs, 1)) for _ in range(turns)]
    mine, other = (_median([pair[i] for pair in both]) for i in (0, 1))
    return Beside(
        experiment=name or "ViT-S/16",
        batch_size=stage.settings.batch_size,
        threads=threads,
        turns=turns,
        step_s=mine.wall_s,
        cpu_s=mine.cpu_s,
        flops=mine.flops,
        baseline_step_s=other.wall_s,
        baseline_cpu_s=other.cpu_s,
        baseline_flops=other.flops,
        times=statistics.median(b.wall_s / a.wall_s for a, b in both),
        cpu_times=statistics.median(b.cpu_s / a.cpu_s for a, b in both),
    )


def table(row: Beside) -> Table:
    """Both sides."""
    made = Table(box=None, pad_edge=False)
    made.add_column("")
    for column in ("s a step", "CPU s", "examples/s", "TFLOP", "GFLOP/s"):
        made.add_column(column, justify="right")
    for side, wall, cpu, flops in (
        ("mmcl", row.step_s, row.cpu_s, row.flops),
        ("open_clip", row.baseline_step_s, row.baseline_cpu_s, row.baseline_flops),
    ):
        made.add_row(
            side,
            f"{wall:.3g}",
            f"{cpu:.3g}",
            f"{row.batch_size / wall:,.3g}",
            f"{flops / 1e12:,.3g}",
            f"{flops / wall / 1e9:,.0f}",
        )
    return made


def summary(row: Beside) -> str:
    """How they compare."""
    return (
        f"{row.times:.2f} × open_clip's steps a second; "
        f"1 step takes {1 / row.cpu_times:.2f} × its CPU seconds."
    )


def _run(name: str, side: StepSide, steps: int) -> Speed:
    try:
        return side.run(steps)
    except Failed as why:
        raise InputError(f"--against: {name}: {why}") from None


def _median(speeds: list[Speed]) -> Speed:
    return Speed(*map(statistics.median, zip(*speeds)))


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
