"""Runs that are trained one after another, each in a folder and a process of its own."""

import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import metrics_log, workdir
from mmcl.command import STOPPED, note
from mmcl.remote import Mirror

FAILED = 1  # exit code where a run failed
_STDERR = 2
_TRAIN = "from mmcl.cli import main; main()"


class Run(NamedTuple):
    experiment: str  # FILE[:ARG]
    overrides: list[tuple[str, str]]  # dotted key of the config, value as text
    folder: Path


class Ended(NamedTuple):
    run: Run
    where: str  # its folder as the user knows it
    final: dict[str, Any] | None  # the last row of its metrics; None: it failed


def trained(runs: Sequence[Run], mirror: Mirror, *, aside: bool) -> Iterator[Ended]:
    """All of them, each as it ends; what was finished before is left alone.

    Ctrl-C ends the program with code 130, after the run at hand has saved.

    Args:
        mirror: of the folder that holds theirs.
        aside: whether stdout is kept for something else.

    Raises:
        InputError: the config or folder of one is not in order; nothing was begun.
    """
    stops = [_checked(run) for run in runs]
    with _signals() as going:
        for number, (run, stop) in enumerate(zip(runs, stops), 1):
            head = f"{number}/{len(runs)}  {run.folder.name}"
            where = mirror.shown(run.folder)
            if _finished(run, stop):
                click.echo(f"{head}: finished before", err=aside)
            elif code := going(_command(run, where), head, aside):
                if code == STOPPED:
                    line = shlex.join(["mmcl", *sys.argv[1:]])
                    click.echo(f"Stopped in {where}. Go on with:\n  {line}", err=True)
                    sys.exit(STOPPED)
                note(f"{where} failed, with exit code {code}.")
                yield Ended(run, where, None)
                continue
            else:
                mirror.pull("none")
            yield Ended(run, where, (metrics_log.read(run.folder) or [{}])[-1])


def end_with_failures(ended: Sequence[Ended]) -> None:
    """Say which of them failed, if any, and end with code 1."""
    if failed := [one.where for one in ended if one.final is None]:
        note(f"{len(failed)} of {len(ended)} runs failed: {', '.join(failed)}.")
        sys.exit(FAILED)


def _checked(run: Run) -> int:
    """The last step of a run whose config and folder are in order.

    Raises:
        InputError: they are not.
    """
    from mmcl import experiment as experiments

    config = configs.load(run.experiment, run.overrides)
    try:
        stop = experiments.stages(config)[-1].stop
        workdir.check(run.folder, run.experiment, config)
    except InputError as error:
        raise InputError(f"{run.folder.name}: {error}") from error
    return stop


def _finished(run: Run, stop: int) -> bool:
    """Whether its last row is the final one, and the model was saved."""
    rows = metrics_log.read(run.folder)
    return bool(rows) and "final" in rows[-1] and workdir.newest_step(run.folder) == stop


def _command(run: Run, where: str) -> list[str]:
    words = [f"--config.{key}={value}" for key, value in run.overrides]
    train = ["train", run.experiment, "--workdir", where, *words]
    return [sys.executable, "-c", _TRAIN, *train]


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[list[str], str, bool], int]]:
    """How to run a command to its end: Ctrl-C, or a plea to end, is handed on to it, once for each
    time; it then saves and ends with code 130, and so does every later one, unstarted.

    Each command has a session of its own, so that a terminal tells it nothing past this process.
    """
    running: list[subprocess.Popen[bytes]] = []
    stopping = False

    def hand_on(signum: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        for process in running:
            process.send_signal(signal.SIGINT)

    def going(command: list[str], head: str, aside: bool) -> int:
        if stopping:
            return STOPPED
        click.echo(head, err=aside)
        with subprocess.Popen(
            command, stdout=_STDERR if aside else None, start_new_session=True
        ) as process:
            running[:] = [process]
            if stopping:  # between the question and the start
                process.send_signal(signal.SIGINT)
            code = process.wait()
            running.clear()
        return STOPPED if stopping and code else code

    before = {one: signal.signal(one, hand_on) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield going
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
