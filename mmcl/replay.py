"""One step of a run once more, from the checkpoint before it; nothing is written."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment, workdir
from mmcl.bad_steps import BadSteps
from mmcl.built_stage import BuiltStage, build
from mmcl.checkpoint import Checkpoints, check_sound
from mmcl.debug_nans import first_not_finite
from mmcl.engine_choices import kept_choices
from mmcl.experiment import Stage
from mmcl.feed import Feed
from mmcl.state import TrainState
from mmcl.train import device_kind, pass_over


class Moment(NamedTuple):
    """A run just before a step."""

    built: BuiltStage
    state: TrainState
    batch: dict[str, Any]  # that the step takes


class Again(NamedTuple):
    """A step, made once more.

    Attributes:
        metrics: named as in metrics.jsonl.
        diagnosis: where its first number that is not finite comes from, in words; or nothing.
    """

    metrics: dict[str, float]
    diagnosis: str


def again(
    config: dict[str, Any],
    folder: Path,
    mesh: Mesh,
    step: int,
    tell: Callable[[str], None],
    *,
    debug_nans: bool = False,
) -> Again:
    """Make a step of the run in `folder` once more.

    Args:
        tell: who is told from where on.
        debug_nans: whether to look for the first number that is not finite.

    Raises:
        InputError: there is no such step.
    """
    with _as_then(folder, mesh):
        built, state, batch = before(experiment.stages(config), folder, mesh, step, tell)
        found = first_not_finite(built.stage.settings, state, batch) if debug_nans else ""
        _, metrics = built.train_step(state, batch)
        numbers = jax.device_get(metrics)
    return Again({f"train/{k}": float(x) for k, x in numbers.items() if k != "bad"}, found)


def diagnosis(
    config: dict[str, Any], folder: Path, mesh: Mesh, step: int, tell: Callable[[str], None]
) -> str:
    """Where the first number of a step that is not finite comes from, in words."""
    with _as_then(folder, mesh):
        built, state, batch = before(experiment.stages(config), folder, mesh, step, tell)
        return first_not_finite(built.stage.settings, state, batch)


@contextlib.contextmanager
def _as_then(folder: Path, mesh: Mesh) -> Iterator[None]:
    """On these devices, and with the run's own choices for the pair engine."""
    with jax.set_mesh(mesh), kept_choices(folder, device_kind(mesh), None):
        yield


def before(
    stages: Sequence[Stage], folder: Path, mesh: Mesh, step: int, tell: Callable[[str], None]
) -> Moment:
    """The run in `folder` before step `step`, under `jax.set_mesh(mesh)`.

    Raises:
        InputError: there is no such step.
    """
    total = stages[-1].stop
    if not 1 <= step <= total:
        raise InputError(f"--replay: {step} should be a step of the run, from 1 to {total}.")
    done = max((at for at in workdir.saved_steps(folder) if at < step), default=0)
    first = next(stage for stage in stages if done <= stage.stop)
    built, data = build(first, mesh), dict[str, Any]()
    state = built.init()
    if done:
        check_sound(folder, done)
        checkpoints = Checkpoints(folder, writes=False)
        state, data, _ = checkpoints.restore(state, done)
        checkpoints.close()
    tell(f"From {f'checkpoint {done}' if done else 'the start'} to step {step}.")
    bad = BadSteps(folder, tell)
    for stage in stages[first.number :]:
        if 0 < done == stage.start:
            built, data = build(stage, mesh), {}
            state = built.enter(state)
        feed = Feed(built, done, data)
        for batch in feed:
            if done + 1 == step:
                return Moment(built, state, batch)
            done += 1
            if bad.left_out(done):
                state, metrics = pass_over(state), dict[str, jax.Array]()
            else:
                state, metrics = built.train_step(state, batch)
            feed.stepped(metrics, state)
    raise AssertionError("a step of the run is in one of its stages")
