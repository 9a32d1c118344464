"""The folder of a run: whose it is, and that it can be written."""

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from mmcl import config as configs

LOCK = "train.lock"  # held by the process that trains; the kernel takes it from a dead one


def check(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """The folder is new or empty, or holds a run of this very experiment; nothing is written.

    Raises:
        InputError: it cannot be written, or belongs to something else.
    """
    writable(workdir, "--workdir")
    if not workdir.is_dir() or all(file.name == LOCK for file in workdir.iterdir()):
        return
    if not (workdir / "config.json").is_file():
        raise InputError(f"{workdir} holds files but no run; give an empty folder with --workdir.")
    written = configs.read(workdir)
    changed = configs.differences(_lasting(written["config"]), _lasting(config))
    if changed:
        more = f" (and {len(changed) - 4} more)" if len(changed) > 4 else ""
        raise InputError(
            f"{workdir} holds a run of {written['experiment']} with another config: "
            f"{'; '.join(changed[:4])}{more}. Give another --workdir, or the old values."
        )


def _lasting(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what a resume may change: how many threads and processes load data, how many
    bad records are put up with, what is saved and who is told, on which no number depends; what is
    done about bad steps; and where arrays lie, on which numbers depend only as far as they are
    added up in another order.
    """
    changeable = ("threads", "workers", "checkpoint", "wandb", "mesh", "sharding", "guard")
    kept = {key: value for key, value in config.items() if key not in changeable}
    if isinstance(faults := config.get("faults"), dict):
        kept["faults"] = {key: value for key, value in faults.items() if key != "share"}
    if not kept.get("faults", True):
        del kept["faults"]
    if isinstance(stages := config.get("stages"), list):
        kept["stages"] = [_lasting(stage) for stage in stages]
    return kept


def writable(folder: Path, option: str) -> None:
    """The folder can be written, or made; nothing is.

    Raises:
        InputError: it cannot; the message names the option that gives another.
    """
    if re.match(r"[a-z0-9]+:/", str(folder)):
        raise InputError(
            f"{folder} is no folder of this machine; mount the bucket, and give the path with "
            f"{option}."
        )
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.exists(p))
    if not there.is_dir():
        raise InputError(f"{there} is a file, not a folder; give another place with {option}.")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"{there} cannot be written; give another place with {option}.")


def newest_step(workdir: Path) -> int:
    """Step of the newest complete checkpoint; 0 for none."""
    return max(saved_steps(workdir), default=0)


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints, in order."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(file.name) for file in folder.iterdir() if file.name.isdigit())


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """While inside, no other process trains in the folder, which is made if it is not there.

    Raises:
        InputError: another one does.
    """
    with contextlib.ExitStack() as held:
        with _saying(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((workdir / LOCK).open("a+"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"{workdir} is being trained by {lock.read() or 'another process'}: stop that, or "
                "give another --workdir."
            ) from error
        except OSError:  # a file system without locks
            pass
        with _saying(workdir):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield


@contextlib.contextmanager
def _saying(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{workdir} cannot be written ({error.strerror}); give another place with --workdir."
        ) from error


def create(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """Make the folder, with the resolved config in it.

    Raises:
        InputError: the disk does not take it.
    """
    with _saying(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        configs.write(workdir, experiment, config)
