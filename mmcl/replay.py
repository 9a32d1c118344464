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
from mmcl.checkpoint import Checkpoints
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


def again(
    config: dict[str, Any], folder: Path, mesh: Mesh, step: int, tell: Callable[[str], None]
) -> dict[str, float]:
    """The metrics of a step that is made once more, named as in metrics.jsonl.

    Raises:
        InputError: there is no such step.
    """
    with _as_then(folder, mesh):
        built, state, batch = before(experiment.stages(config), folder, mesh, step, tell)
        _, metrics = built.train_step(state, batch)
        numbers = jax.device_get(metrics)
    return {f"train/{name}": float(x) for name, x in numbers.items() if name != "bad"}


def diagnosis(
    config: dict[str, Any], folder: Path, mesh: Mesh, step: int, tell: Callable[[str], None]
) -> str:
    """Where the first number of a step that is not finite comes from, in words."""
    with _as_then(folder, mesh):
        moment = before(experiment.stages(config), folder, mesh, step, tell)
        return first_not_finite(moment.built.stage.settings, moment.state, moment.batch)


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
        checkpoints = Checkpoints(folder, writes=False)
        state, data, _ = checkpoints.restore(state, done)
        checkpoints.close()
    tell(f"From {f'checkpoint {done}' if done else 'the start'} to step {step}.")
    bad = BadSteps(folder, tell)
    for stage in stages[first.number :]:
        if 0 < done == stage.start:
            built, data = build(stage, mesh), {}
            state = built.enter(state)
        feed = Feed(built, done, data, _Unheard())
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


class _Unheard:
    """In the place of a log of rejected records."""

    def add(self, step: int, rejected: Any) -> None: ...
