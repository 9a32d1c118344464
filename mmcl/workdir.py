"""The folder of a run: whose it is, and that it can be written."""

import os
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from mmcl import config as configs


def check(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """The folder is new or empty, or holds a run of this very experiment; nothing is written.

    Raises:
        InputError: it cannot be written, or belongs to something else.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"The workdir {workdir} is a file; give a folder with --workdir.")
    parent = next(p for p in (workdir.absolute(), *workdir.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write in {parent}; give another folder with --workdir.")
    if not workdir.is_dir() or not any(workdir.iterdir()):
        return
    if not (workdir / "config.json").is_file():
        raise InputError(f"{workdir} holds files but no run; give an empty folder with --workdir.")
    changed = configs.differences(configs.read(workdir)["config"], config)
    if changed:
        more = f" (and {len(changed) - 4} more)" if len(changed) > 4 else ""
        raise InputError(
            f"{workdir} holds a run of {configs.read(workdir)['experiment']} with another config: "
            f"{'; '.join(changed[:4])}{more}. Give another --workdir, or the old values."
        )


def newest_step(workdir: Path) -> int:
    """Step of the newest complete checkpoint; 0 for none."""
    folder = workdir / "checkpoints"
    steps = [int(f.name) for f in folder.iterdir() if f.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=0)


def create(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """Make the folder, with the resolved config in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    if not (workdir / "config.json").is_file():
        configs.write(workdir, experiment, config)
