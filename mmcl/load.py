"""Open a run that `mmcl train` left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl import config as configs
from mmcl import experiment, workdir
from mmcl.built_stage import build
from mmcl.checkpoint import Checkpoints, check_sound, newest_sound
from mmcl.mesh import fitting_mesh
from mmcl.model import Model


class Run(NamedTuple):
    experiment: str  # FILE[:ARG]
    step: int
    model: Model


def load(
    folder: Path,
    mesh: Mesh | None = None,
    step: int | str | None = None,
    tell: Callable[[str], None] = print,
) -> Run:
    """The model of a checkpoint in a workdir, with its data.

    Args:
        mesh: the devices; None: all, along the axes of the run where they come out even.
        step: of the checkpoint, or "best", by `config.checkpoint.best`; None: the newest that is
            not damaged.
        tell: who is told of damage.

    Raises:
        InputError: the folder holds no run, or the run has no such checkpoint.
    """
    if not folder.is_dir():
        runs = [str(file.parent) for file in folder.parent.glob("*/config.json")]
        near = nearest(str(folder), runs) or " Give the folder that `mmcl train` printed."
        raise InputError(f"There is no run '{folder}'.{near}")
    written = configs.read(folder)
    file = Path(written.get("file") or written["experiment"])
    configs.importable(file)
    try:
        stages = experiment.stages(written["config"])
    except InputError as error:
        if file.is_file():
            raise
        raise InputError(
            f"{error} {folder} was trained with {file}, which is gone: put it back, with the "
            "modules beside it."
        ) from error
    saved = workdir.saved_steps(folder)
    if not saved:
        raise InputError(f"{folder} has no checkpoint yet; `mmcl train` writes them.")
    if step not in (None, "best", *saved):
        raise InputError(f"{folder} has no checkpoint of step {step}; it has {saved}.")
    checkpoints = Checkpoints(folder, best=stages[0].settings.checkpoint.best, writes=False)
    if step is None:
        at, _ = newest_sound(folder, tell)
    else:
        at = checkpoints.best_step() if step == "best" else int(step)
        check_sound(folder, at)
    mesh = mesh or fitting_mesh(stages[0].settings.mesh)
    with jax.set_mesh(mesh):
        built = build(next(stage for stage in stages if at <= stage.stop), mesh)
        state = checkpoints.restore(built.init(), at).state
        checkpoints.close()
        return Run(written["experiment"], at, built.model(state))
