"""`mmcl compare`: train two experiments over some seeds and say what differs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import workdir
from mmcl.command import Workdir, console, debug_option, errors, note, two_words
from mmcl.compare import Compared, compare, varies
from mmcl.remote import Mirror, mirrored
from mmcl.results import record
from mmcl.runs import Run, end_with_failures, trained

TABLE, PLOT = "compare.json", "compare.png"
BUDGET = ("steps", "batch_size", "source", "stages")  # of what the two should have the same


@click.command(
    "compare",
    context_settings={"ignore_unknown_options": True},
    short_help="Train two experiments over some seeds and say what differs.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="A[:ARG] B[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each of the two."
)
@click.option("--steps", type=click.IntRange(1), help="Of every run.  [default: the configs']")
@click.option(
    "--folder", type=Workdir(), help="Where the runs go, or a URL.  [default: runs/A-vs-B]"
)
@click.option(
    "--claim",
    metavar="METRIC",
    help="B's is to be larger (-METRIC: smaller); written into --results.",
)
@click.option(
    "--results",
    default="experiments/RESULTS.md",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The table of claims, where a row is added or replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@debug_option
def compare_command(
    words: Sequence[str],
    seeds: int,
    steps: int | None,
    folder: Path | str | None,
    claim: str | None,
    results: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Train two experiments over the same seeds, data order and budget, one run
    after another, and print every metric of both: mean ± standard deviation, and
    the 95 % interval of the paired difference.

    \b
      mmcl compare experiments/quickstart.py my/quickstart.py --seeds 5
      mmcl compare a.py b.py --steps 500 --config.batch_size=256

    --config changes both. Ctrl-C saves and stops; the same command goes on, and
    leaves alone what is finished. The table is also written to compare.json, and
    drawn in compare.png. With --claim, whether the interval of that metric's
    difference lies on the claimed side of 0 is written into a Markdown table.
    """
    with errors(debug, stopped="Stopped; the same command goes on."):
        options = ["--seeds", "--steps", "--folder", "--claim", "--results", "--json", "--debug"]
        options += ["--help", "--config.KEY=VALUE"]
        a, b, changes = two_words(words, "`mmcl compare` takes two FILE[:ARG]", options)
        if steps is not None:
            changes = [*changes, ("steps", str(steps))]
        names = [configs.name(a), configs.name(b)]
        place = folder or Path("runs") / "-vs-".join(names)
        with mirrored(place, "none") as mirror:
            mirror.check_writable()
            found = _compare([a, b], changes, seeds, mirror, as_json)
        if claim is not None:
            row = record(results, a, b, changes, found, claim)
            click.echo(f"{row.told()} Written into {results}.", err=as_json)


def _compare(
    experiments: Sequence[str],
    changes: Sequence[tuple[str, str]],
    seeds: int,
    mirror: Mirror,
    as_json: bool,
) -> list[Compared]:
    """The metrics of both, shown and written."""
    folder = mirror.folder
    if experiments[0] == experiments[1]:
        raise InputError(f"{experiments[0]} is given twice; there is nothing to compare.")
    for line in unequal(*(configs.load(name, changes) for name in experiments)):
        note(line)
    workdir.writable(folder, "--folder")
    runs = [
        Run(name, [*changes, ("seed", str(seed))], folder / f"{side}-seed={seed}")
        for seed in range(seeds)
        for side, name in zip("ab", experiments)
    ]
    ended = list(trained(runs, mirror, aside=as_json))
    pairs = list(zip(ended[::2], ended[1::2]))
    whole = [(a.final, b.final) for a, b in pairs if a.final and b.final]
    found = compare([a for a, _ in whole], [b for _, b in whole]) if whole else []
    told = {
        "a": experiments[0],
        "b": experiments[1],
        "config": dict(changes),
        "seeds": [seed for seed, (a, b) in enumerate(pairs) if a.final and b.final],
        "metrics": {one.metric: as_plain(one) for one in found},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    shown = [one for one in found if varies(one) and one.metric.startswith("eval/")]
    shown += [one for one in found if one.metric == "train/loss"]
    if shown:
        from mmcl.report.forest import forest

        forest(shown, experiments[0], experiments[1], folder / PLOT)
    mirror.push()
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        _print(shown, experiments, len(whole))
        click.echo(f"Table: {mirror.shown(folder / TABLE)}")
        if shown:
            click.echo(f"Plot: {mirror.shown(folder / PLOT)}")
    end_with_failures(ended)
    return found


def unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """A line for each thing that makes the two train on something else, or for longer."""
    return [
        f"the two differ in config.{key}, so not only in what they do with the same data."
        for key in BUDGET
        if a.get(key) != b.get(key)
    ]


def as_plain(one: Compared) -> dict[str, Any]:
    """For JSON, which has no word for NaN."""
    interval = None if math.isnan(one.low) else [one.low, one.high]
    return {"a": one.a_N, "b": one.b_N, "difference": one.difference, "interval": interval}


def _print(shown: Sequence[Compared], experiments: Sequence[str], seeds: int) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{seeds} seeds" if seeds != 1 else "1 seed", overflow="fold")
    for column in (*experiments, "B − A", "95 %"):
        table.add_column(column, justify="right", overflow="fold")
    for one in shown:
        ends = "" if math.isnan(one.low) else f"{one.low:+.3f} … {one.high:+.3f}"
        sides = [_mean_and_sd(values) for values in (one.a_N, one.b_N)]
        name = one.metric.removeprefix("eval/")
        table.add_row(name, *sides, f"{one.difference:+.3f}", ends)
    console().print(table)


def _mean_and_sd(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean
