"""`mmcl sweep`: train an experiment with every combination of some values, one after another."""

import contextlib
import json
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import metrics_log, workdir
from mmcl.command import STOPPED, Workdir, console, debug_option, errors, note, one_word
from mmcl.remote import Mirror, mirrored
from mmcl.sweep import Run, best_first, grid, metric_names

FAILED = 1  # exit code where a run failed
TABLE = "sweep.json"
_STDERR = 2
_TRAIN = "from mmcl.cli import main; main()"


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="Train an experiment with every combination of some values.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="FILE[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--over",
    "overs",
    multiple=True,
    required=True,
    metavar="config.KEY=A,B",
    help="Values of a key; may be repeated for others.",
)
@click.option(
    "--folder",
    type=Workdir(),
    help="Where the runs go, or a URL.  [default: runs/FILE-ARG-sweep]",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Metric of the table, which the first sorts; -METRIC where lower is better.  [default: "
    "the first of the evaluation, else the loss]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@debug_option
def sweep(
    words: Sequence[str],
    overs: Sequence[str],
    folder: Path | str | None,
    metrics: Sequence[str],
    as_json: bool,
    debug: bool,
) -> None:
    """Train an experiment with every combination of some values, one run after
    another, each in a folder and a process of its own.

    \b
      mmcl sweep my/experiment.py --over config.schedule.peak=1e-3,3e-3,1e-2
      mmcl sweep my/experiment.py --over config.seed=0,1,2 \\
          --over config.objective.name=infonce,sigmoid --config.steps=2000

    Ctrl-C saves and stops; the same command goes on, and leaves alone what is
    finished. A run that fails is named, the others go on, and the exit code is 1.
    The table, with all final metrics, is also written to sweep.json.
    """
    with errors(debug, stopped="Stopped; the same command goes on."):
        options = ["--over", "--folder", "--metric", "--json", "--debug", "--help"]
        options += ["--config.KEY=VALUE"]
        experiment, fixed = one_word(words, "`mmcl sweep` takes one FILE[:ARG]", options)
        place = folder or Path("runs") / f"{configs.name(experiment)}-sweep"
        with mirrored(place, "none") as mirror:
            mirror.check_writable()
            _sweep(experiment, fixed, overs, mirror, metrics, as_json)


def _sweep(
    experiment: str,
    fixed: Sequence[tuple[str, str]],
    overs: Sequence[str],
    mirror: Mirror,
    metrics: Sequence[str],
    as_json: bool,
) -> None:
    folder = mirror.folder
    runs = grid(overs, folder)
    stops = [_checked(experiment, fixed, run) for run in runs]
    workdir.writable(folder, "--folder")
    rows: list[dict[str, Any]] = []
    names = list(metrics)
    with _signals() as going:
        for number, (run, stop) in enumerate(zip(runs, stops), 1):
            head = f"{number}/{len(runs)}  {run.folder.name}"
            where = mirror.shown(run.folder)
            status = "done"
            if _finished(run, stop):
                click.echo(f"{head}: finished before", err=as_json)
            elif code := going(_command(experiment, fixed, run, where), head, as_json):
                if code == STOPPED:
                    line = shlex.join(["mmcl", *sys.argv[1:]])
                    click.echo(f"Stopped in {where}. Go on with:\n  {line}", err=True)
                    sys.exit(STOPPED)
                note(f"{where} failed, with exit code {code}.")
                status = "failed"
            else:
                mirror.pull("none")
            final = (metrics_log.read(run.folder) or [{}])[-1] if status == "done" else {}
            rows.append(
                {
                    "run": where,
                    "status": status,
                    "config": dict(run.overrides),
                    "metrics": {key: _plain(value) for key, value in final.items()},
                }
            )
            if final:
                names = metric_names(final, metrics)
    sorted_rows = best_first(rows, names[0]) if names else rows
    told = {"experiment": experiment, "sorted_by": names[:1], "runs": sorted_rows}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    mirror.push()
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _print(sorted_rows, names)
        click.echo(f"Table: {mirror.shown(folder / TABLE)}")
    if failed := [row["run"] for row in rows if row["status"] == "failed"]:
        note(f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed)}.")
        sys.exit(FAILED)


def _checked(experiment: str, fixed: Sequence[tuple[str, str]], run: Run) -> int:
    """The last step of a run whose config and folder are in order.

    Raises:
        InputError: they are not.
    """
    from mmcl import experiment as experiments

    config = configs.load(experiment, [*fixed, *run.overrides])
    try:
        stop = experiments.stages(config)[-1].stop
        workdir.check(run.folder, experiment, config)
    except InputError as error:
        raise InputError(f"{run.folder.name}: {error}") from error
    return stop


def _finished(run: Run, stop: int) -> bool:
    """Whether its last row is the final one, and the model was saved."""
    rows = metrics_log.read(run.folder)
    return bool(rows) and "final" in rows[-1] and workdir.newest_step(run.folder) == stop


def _command(experiment: str, fixed: Sequence[tuple[str, str]], run: Run, where: str) -> list[str]:
    words = [f"--config.{key}={value}" for key, value in [*fixed, *run.overrides]]
    train = ["train", experiment, "--workdir", where, *words]
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


def _plain(value: Any) -> Any:
    """JSON has no word for what is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for key in rows[0]["config"]:
        table.add_column(key, overflow="fold")
    for metric in metrics:
        table.add_column(metric.removeprefix("-"), justify="right", overflow="fold")
    for row in rows:
        values = [row["metrics"].get(metric.removeprefix("-"), "") for metric in metrics]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        if row["status"] == "failed":
            shown = ["failed", *shown[1:]]
        table.add_row(*row["config"].values(), *shown)
    console().print(table)
