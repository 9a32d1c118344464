"""`mmcl sweep`: train an experiment with every combination of some values, one after another."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from mmcl import config as configs
from mmcl import workdir
from mmcl.command import Workdir, console, debug_option, errors, one_word
from mmcl.remote import Mirror, mirrored
from mmcl.runs import Run, end_with_failures, trained
from mmcl.sweep import best_first, grid, metric_names

TABLE = "sweep.json"


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
    changes = grid(overs, folder)
    runs = [Run(experiment, [*fixed, *changed], where) for changed, where in changes]
    workdir.writable(folder, "--folder")
    ended, names = [], list(metrics)
    for one in trained(runs, mirror, aside=as_json):
        ended.append(one)
        if one.final:
            names = metric_names(one.final, metrics)
    rows = [
        {
            "run": one.where,
            "status": "failed" if one.final is None else "done",
            "config": dict(changed),
            "metrics": {key: _plain(value) for key, value in (one.final or {}).items()},
        }
        for one, (changed, _) in zip(ended, changes)
    ]
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
    end_with_failures(ended)


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
