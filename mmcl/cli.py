"""The command line: `mmcl train | eval | search`."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs

console = Console(highlight=False)


class Teaching(click.Group):
    """Commands in the order in which they are used, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Teaching, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mmcl")
def cli() -> None:
    """Pretrain multimodal contrastive models.

    \b
    Train a first model on real pictures and captions, ask it, judge it:
      mmcl train experiments/quickstart.py
      mmcl search runs/quickstart --text "a sad animal"
      mmcl eval runs/quickstart

    An experiment is a Python file with get_config(); copy one and change it. Bad input ends with
    one line and exit code 2; --debug shows where it came from.
    """


debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("experiment", metavar="FILE[:ARG]")
@click.option(
    "--workdir",
    type=click.Path(path_type=Path),
    help="Folder of the run; default runs/<file>-<arg>.",
)
@debug_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--config.KEY=VALUE ...]")
def train(experiment: str, workdir: Path | None, debug: bool, overrides: Sequence[str]) -> None:
    """Train an experiment; the same command goes on with a run that was stopped.

    \b
    FILE     a file of your own, or one that mmcl brings along (experiments/quickstart.py)
    ARG      a variant of it; every experiment has `runlocal`: seconds, to see that all works
    KEY      any key of the config, dotted; list items by number

    \b
      mmcl train experiments/quickstart.py
      mmcl train experiments/quickstart.py:runlocal --workdir /tmp/try
      mmcl train experiments/quickstart.py --config.optimizer.weight_decay=0.05 --config.seed=1

    The workdir gets checkpoints, metrics.jsonl, TensorBoard events, the resolved config.json and
    report.html. Ctrl-C saves; the exit code is then 130.
    """
    with errors(debug):
        folder = workdir or Path("runs") / configs.name(experiment)
        config = configs.load(experiment, list(_overrides(overrides)))
        console.print(f"Workdir: {folder}")
        from mmcl.mesh import data_mesh
        from mmcl.metrics_log import read
        from mmcl.report.report import write_report
        from mmcl.train import Interrupted, train

        try:
            splits = train(experiment, config, folder, console, data_mesh())
        except Interrupted as stopped:
            console.print(f"{stopped} Go on with:\n  {_command()}")
            sys.exit(130)
        rows = read(folder)
        report = write_report(
            folder,
            name=configs.name(experiment),
            config=config,
            rows=rows,
            splits=splits,
            next_steps=[
                (title, command, why) for title, command, why in config.get("next_steps", ())
            ],
        )
        print_tables({key: value for key, value in rows[-1].items() if key.startswith("eval/")})
        console.print(f"Report: {report}\nWorkdir: {folder}")


@cli.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", "splits", multiple=True, help="Split to evaluate; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@debug_option
def evaluate(run: Path, splits: Sequence[str], as_json: bool, debug: bool) -> None:
    """Evaluate a run's newest checkpoint: retrieval both ways, zero-shot classification.

    RUN is the folder that `mmcl train` printed.

    \b
      mmcl eval runs/quickstart
      mmcl eval runs/quickstart --split unseen_artist --json
    """
    with errors(debug):
        from mmcl.load import load
        from mmcl.mesh import data_mesh

        loaded = load(run, data_mesh())
        metrics: dict[str, float] = {}
        for split in splits or loaded.model.settings.eval.splits:
            metrics |= loaded.model.evaluate(loaded.model.embed(split))
        if as_json:
            click.echo(json.dumps({"run": str(run), "step": loaded.step, **metrics}, indent=2))
        else:
            console.print(f"{loaded.experiment}, step {loaded.step}")
            print_tables(metrics)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--text", required=True, help="What to look for.")
@click.option("--from", "query", help="Modality whose tower reads the text; default: text.")
@click.option("--to", "among", help="Modality that is searched; default: the first other one.")
@click.option("-k", default=24, show_default=True, type=click.IntRange(1), help="How many results.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Contact sheet; default: in RUN/search/."
)
@debug_option
def search(
    run: Path,
    text: str,
    query: str | None,
    among: str | None,
    k: int,
    out: Path | None,
    debug: bool,
) -> None:
    """Search a run's data with a text; prints the best and saves a contact sheet.

    \b
      mmcl search runs/quickstart --text "a sad animal"
      mmcl search runs/molecules --text "caffeine" --from name --to smiles
    """
    with errors(debug):
        from mmcl.contact_sheet import contact_sheet
        from mmcl.load import load
        from mmcl.mesh import data_mesh
        from mmcl.search import search

        if not text.strip():
            raise InputError("--text is empty; say what to look for.")
        model = load(run, data_mesh()).model
        hits = search(model, text, query=query, among=among, k=k)
        table = Table(box=None)
        for column in ("", "cosine", "record", "split", "caption"):
            table.add_column(column, justify="right" if column in ("", "cosine") else "left")
        items = []
        for rank, hit in enumerate(hits, 1):
            words = [thing for thing in hit.shown.values() if isinstance(thing, str)]
            picture = next((t for t in hit.shown.values() if not isinstance(t, str)), None)
            caption = " · ".join(words)
            items.append((picture, caption, hit.score))
            table.add_row(str(rank), f"{hit.score:.3f}", hit.id, hit.split, caption)
        console.print(table)
        out = out or run / "search" / (re.sub(r"\W+", "-", text).strip("-")[:60] + ".png")
        out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(items, title=text).save(out)
        console.print(f"Contact sheet: {out}")


def print_tables(metrics: dict[str, float]) -> None:
    """`eval/<split>/<task>/<metric>` numbers: a table for each set of metrics, a row for each task.

    What chance gives stands in brackets behind its metric.
    """
    tasks: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        task, _, metric = key.removeprefix("eval/").rpartition("/")
        tasks.setdefault(task, {})[metric] = value
    tables: dict[tuple[str, ...], Table] = {}
    for task, values in tasks.items():
        chances = [metric for metric in values if metric.startswith("chance")]
        columns = tuple(metric for metric in values if metric not in chances)
        if columns not in tables:
            tables[columns] = Table("", *columns, box=None, pad_edge=False)
            for column in tables[columns].columns[1:]:
                column.justify = "right"
        chance = {metric.replace("chance", "recall"): values[metric] for metric in chances}
        if "chance" in chances:  # of the first metric, accuracy
            chance = {columns[0]: values["chance"]}
        tables[columns].add_row(
            task,
            *(
                _number(values[c]) + (f" ({_number(chance[c])})" if c in chance else "")
                for c in columns
            ),
        )
    for table in tables.values():
        console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.3f}"


def _overrides(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--config.a.b=1` or `--config.a.b 1` -> ("a.b", "1")."""
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--config."):
            raise InputError(f"Unknown option '{word}'; `mmcl train --help` lists them.")
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            if not words:
                raise InputError(f"{word} needs a value: {word}=VALUE.")
            value = words.pop(0)
        yield key, value


def _command() -> str:
    return " ".join(["mmcl", *sys.argv[1:]])


@contextlib.contextmanager
def errors(debug: bool) -> Iterator[None]:
    """One line for what the user did wrong; a traceback only with --debug."""
    try:
        yield
    except InputError as error:
        if debug:
            raise
        click.echo(f"mmcl: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if debug:
            raise
        click.echo("mmcl: stopped.", err=True)
        sys.exit(130)


def main() -> None:
    """The console script `mmcl`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's C++ chatter
    cli()
