"""The command line: `mmcl train | eval | search | sweep | inspect | plan | data | bench`."""

import ast
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import workdir as workdirs
from mmcl.bench_commands import bench
from mmcl.command import (
    STOPPED,
    Teaching,
    Workdir,
    arrays_of,
    console,
    debug_option,
    errors,
    note,
    one_word,
    process_options,
    step_option,
)
from mmcl.compare_command import compare_command
from mmcl.data_commands import data
from mmcl.inspect_command import inspect
from mmcl.methods_command import methods_command
from mmcl.plan_command import plan
from mmcl.sweep_command import sweep


class Trained(click.Command):
    """A command whose help lists the experiments that mmcl brings along."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Experiments that mmcl brings along"):
            formatter.write_dl(
                [
                    (f"experiments/{file.name}", _first_sentence(file))
                    for file in configs.brought_along()
                ]
            )


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


@click.group(
    cls=Teaching,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="mmcl")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Pretrain multimodal contrastive models.

    \b
    Train a first model on real pictures and captions, ask it, judge it:
      mmcl train experiments/quickstart.py
      mmcl search runs/quickstart --text "a sad animal"
      mmcl eval runs/quickstart

    An experiment is a Python file with get_config(arg): copy one and change it,
    or change single values with --config.KEY=VALUE. A run is a folder.

    Exit codes: 0 done, or stopped by SIGTERM with the state saved; 2 bad input,
    and one line says what to do; 130 stopped by Ctrl-C.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command(
    cls=Trained,
    context_settings={"ignore_unknown_options": True},
    short_help="Train an experiment, or go on with a run.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="FILE[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--workdir",
    type=Workdir(),
    help="Folder of the run, or a URL (gs://, s3://).  [default: runs/FILE-ARG]",
)
@click.option(
    "--engine",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Choices of `mmcl bench loss --autotune`, for a new run to begin with.",
)
@click.option(
    "--replay",
    type=click.IntRange(1),
    metavar="STEP",
    help="Make that step of a run once more, from the checkpoint before it, and compare.",
)
@click.option(
    "--debug-nans",
    is_flag=True,
    help="Name the first layer that is not finite, where a run stops for it; or of --replay STEP.",
)
@process_options
@debug_option
def train(
    words: Sequence[str],
    workdir: Path | str | None,
    engine: Path | None,
    replay: int | None,
    debug_nans: bool,
    meet: Callable[..., None],
    debug: bool,
) -> None:
    """Train an experiment; the same command goes on with a run that was stopped.

    \b
    FILE  an experiment: your own file, or one that mmcl brings along
    ARG   a variant of it; every experiment has `runlocal`: seconds on any
          machine, to see that all works
    KEY   any key of its config, dotted; items of lists by number

    \b
      mmcl train experiments/quickstart.py
      mmcl train experiments/quickstart.py:runlocal --workdir /tmp/try
      mmcl train my/experiment.py --config.optimizer.weight_decay=0.05
      mmcl train my/experiment.py --config.eval.splits='["unseen_concept"]'

    The run's folder gets checkpoints, metrics.jsonl, TensorBoard events, the
    resolved config.json and report.html. Ctrl-C saves and stops, and so does
    SIGTERM.
    """
    with errors(debug, stopped="Stopped; the same command goes on from what was saved."):
        options = ["--workdir", "--engine", "--config.KEY=VALUE", "--debug", "--help"]
        options += ["--replay", "--debug-nans"]
        options += ["--coordinator", "--processes", "--process", "--wait"]
        experiment, overrides = one_word(words, "`mmcl train` takes one FILE[:ARG]", options)
        folder = workdir or Path("runs") / configs.name(experiment)
        config = configs.load(experiment, overrides)
        from mmcl import experiment as experiments
        from mmcl.bad_steps import BadStep
        from mmcl.engine_choices import measured_choices
        from mmcl.evals import judged
        from mmcl.mesh import make_mesh
        from mmcl.metrics_log import read
        from mmcl.processes import any_says, is_first, this_process
        from mmcl.remote import mirrored
        from mmcl.replay import diagnosis
        from mmcl.report.report import write_report
        from mmcl.report.saliency import asked_for
        from mmcl.train import Interrupted, train

        if replay is not None:
            _replay(experiment, config, folder, replay, debug_nans)
            return
        choices = None if engine is None else measured_choices(engine)
        axes = experiments.stages(config)[0].settings.mesh
        meet(preemptible=True)
        if is_first():
            click.echo(f"Workdir: {folder}")
        speaks = console(quiet=not is_first())
        with mirrored(folder, writes=this_process()) as mirror:
            here = mirror.folder
            try:
                trained = train(
                    experiment, config, here, speaks, make_mesh(axes), choices, mirror.apart
                )
            except Interrupted as stopped:
                if is_first():
                    click.echo(f"{stopped} Go on with:\n  {shlex.join(['mmcl', *sys.argv[1:]])}")
                trained, code = None, 0 if stopped.by == signal.SIGTERM else STOPPED
            except BadStep as bad:
                if not debug_nans or this_process() != (0, 1):
                    raise
                found = diagnosis(config, here, make_mesh(axes), bad.step, note)
                raise InputError(f"{bad} {found}") from bad
            mirror.push()
            any_says(False)  # nobody ends before all have uploaded their part
            if trained is None:
                raise Leaving(code)
            saliency = asked_for(*trained)
            if not is_first():
                return
            rows = read(here)
            spread = judged.spread(here)
            report = write_report(
                here,
                name=configs.name(experiment),
                config=config,
                rows=rows,
                splits=trained.splits,
                spread=spread,
                saliency=saliency,
                next_steps=[
                    (title, command, why) for title, command, why in config.get("next_steps", ())
                ],
            )
        print_tables({k: v for k, v in rows[-1].items() if k.startswith("eval/")}, spread)
        click.echo(f"Report: {mirror.shown(report)}\nWorkdir: {folder}")


def _replay(
    name: str, config: dict[str, Any], run: Path | str, step: int, debug_nans: bool
) -> None:
    """A step of a run once more: its numbers beside those that were logged."""
    from mmcl import experiment as experiments
    from mmcl.mesh import make_mesh
    from mmcl.metrics_log import read
    from mmcl.remote import mirrored
    from mmcl.replay import again

    with mirrored(run, "all") as mirror:
        here = mirror.folder
        if not (here / "config.json").is_file():
            raise InputError(f"There is no run '{run}'; give its folder with --workdir.")
        workdirs.check(here, name, config)
        mesh = make_mesh(experiments.stages(config)[0].settings.mesh)
        now, found = again(config, here, mesh, step, note, debug_nans=debug_nans)
        then = next((row for row in read(here) if row["step"] == step), {})
    table = Table(box=None, pad_edge=False)
    for column in (f"step {step}", "logged", "now"):
        table.add_column(column, justify="left" if column == f"step {step}" else "right")
    for key, value in now.items():
        logged = f"{then[key]:.9g}" if key in then else ""
        table.add_row(key, logged, f"{value:.9g}")
    console().print(table)
    compared = [key for key in now if key in then]
    odd = [key for key in compared if str(then[key]) != str(now[key])]
    if compared:
        click.echo("All equal, to the bit." if not odd else f"Not equal: {', '.join(odd)}.")
    if found:
        click.echo(found)


@cli.command("eval", short_help="Evaluate a run's newest, best or any checkpoint.")
@click.argument("run", type=Workdir())
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="Split to evaluate; may be repeated.  [default: those of the config]",
)
@click.option(
    "--suite",
    "named",
    multiple=True,
    metavar="NAME:PATH",
    help="Standard suite to evaluate; may be repeated. Of the run's splits then only --split.",
)
@step_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@process_options
@debug_option
def evaluate(
    run: Path | str,
    splits: Sequence[str],
    named: Sequence[str],
    step: int | str | None,
    as_json: bool,
    meet: Callable[..., None],
    debug: bool,
) -> None:
    """Evaluate a run's newest checkpoint, or another, as its config says: retrieval between
    all modalities, zero-shot classification.

    RUN is the workdir that `mmcl train` printed.

    \b
      mmcl eval runs/quickstart
      mmcl eval runs/quickstart --split unseen_artist --json
      mmcl eval runs/quickstart --step best
      mmcl eval runs/clip_b16 --suite imagenet:/data/imagenet --suite coco:~/coco

    A suite is a file like those in experiments/suites, or one of their names.
    """
    with errors(debug):
        from mmcl import suites
        from mmcl.evals import judged
        from mmcl.evals.figure import Figures, intervals, numbers
        from mmcl.load import load
        from mmcl.processes import is_first
        from mmcl.remote import mirrored

        meet()
        beside = suites.open_all(named)
        with mirrored(run, arrays_of(step)) as mirror:
            loaded = load(mirror.folder, step=step, tell=note)
        if not splits and not named:
            splits = loaded.model.settings.eval.splits
            beside = suites.open_all(loaded.model.settings.eval.suites)
        judging = [(loaded.model, split) for split in splits]
        for suite in beside:
            judging += [(suites.of(suite, loaded.model), split) for split in suite.suite.splits]
        figures: Figures = {}
        for model, split in judging:
            embedded = model.embed(split)
            if embedded.rejected and is_first():
                note(model.told(embedded))
            figures |= model.judge(embedded)
        if not is_first():
            return
        if as_json:
            which = {"run": str(run), "step": loaded.step}
            click.echo(json.dumps(which | judged.told(figures), indent=2))
        else:
            click.echo(f"{loaded.experiment}, step {loaded.step}")
            print_tables(numbers(figures), intervals(figures))


@cli.command(short_help="Search a run's data with a text.")
@click.argument("run", type=Workdir())
@click.option("--text", required=True, help="What to look for.")
@click.option("--from", "query", help="Modality whose tower reads the text.  [default: text]")
@click.option("--to", "among", help="Modality that is searched.  [default: the first other one]")
@click.option("-k", default=24, show_default=True, type=click.IntRange(1), help="How many results.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG file of the contact sheet.  [default: in RUN/search]",
)
@step_option
@debug_option
def search(
    run: Path | str,
    text: str,
    query: str | None,
    among: str | None,
    k: int,
    out: Path | None,
    step: int | str | None,
    debug: bool,
) -> None:
    """Search all splits of a run's data with a text; prints the nearest records
    and saves a contact sheet.

    RUN is the workdir that `mmcl train` printed.

    \b
      mmcl search runs/quickstart --text "a sad animal"
      mmcl search runs/quickstart --text Regenbogen -k 5 --out rainbow.png
    """
    with errors(debug):
        if not text.strip():
            raise InputError("--text is empty; say what to look for.")
        if out is not None and out.suffix.lower() != ".png":
            raise InputError(f"--out: {out} should be the name of a .png file.")
        from mmcl.contact_sheet import contact_sheet
        from mmcl.load import load
        from mmcl.remote import mirrored
        from mmcl.search import search

        with mirrored(run, arrays_of(step)) as mirror:
            out = out or mirror.folder / "search" / f"{_file_name(text)}.png"
            if mirror.folder.is_dir():
                workdirs.writable(out.parent, "--out")
            model = load(mirror.folder, step=step, tell=note).model
            hits = search(model, text, query=query, among=among, k=k)
            table = Table(box=None)
            for column in ("", "cosine", "record", "split", "caption"):
                right = column in ("", "cosine")
                table.add_column(column, justify="right" if right else "left", overflow="fold")
            items = []
            for rank, hit in enumerate(hits, 1):
                words = [thing for thing in hit.shown.values() if isinstance(thing, str)]
                picture = next((t for t in hit.shown.values() if not isinstance(t, str)), None)
                caption = " · ".join(words)
                items.append((picture, caption, hit.score))
                table.add_row(str(rank), f"{hit.score:.3f}", hit.id, hit.split, caption)
            console().print(table)
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                contact_sheet(items, title=text).save(out)
            except OSError as error:
                raise InputError(f"--out: {out} cannot be written ({error.strerror}).") from error
            mirror.push()
            click.echo(f"Contact sheet: {mirror.shown(out)}")


cli.add_command(sweep)
cli.add_command(compare_command)
cli.add_command(methods_command)
cli.add_command(inspect)
cli.add_command(plan)
cli.add_command(data)
cli.add_command(bench)


def print_tables(
    metrics: Mapping[str, float], spread: Mapping[str, Sequence[float]] | None = None
) -> None:
    """`eval/<split>/<task>/<metric>` numbers: for each split and set of metrics a table, in it a
    row for each task, and under it the 95 % intervals, and what chance would reach.
    """
    tasks: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in metrics.items():
        task, _, metric = key.removeprefix("eval/").rpartition("/")
        split, _, task = task.partition("/")
        tasks.setdefault((split, task), {})[metric] = value
    tables: dict[tuple[str, ...], Table] = {}
    for (split, task), values in tasks.items():
        columns = [metric for metric in values if not metric.startswith("chance")]
        table = tables.get((split, *columns))
        if table is None:
            table = tables[split, *columns] = Table(box=None, pad_edge=False)
            table.add_column(split, overflow="fold")
            for column in columns:
                table.add_column(column.replace("_", " "), justify="right")
        table.add_row(task, *(_number(values[column]) for column in columns))
        ends = [(spread or {}).get("/".join(("eval", split, task, column))) for column in columns]
        if any(ends):
            table.add_row("  95 %", *("–".join(map(_short, pair or ())) for pair in ends))
        chance = _chance(values)
        if chance:
            table.add_row("  chance", *(_number(chance.get(column)) for column in columns))
    for table in tables.values():
        console().print(table)


def _chance(values: dict[str, float]) -> dict[str, float]:
    """What a guess would reach, under the name of the metric that it belongs to."""
    first = next(iter(values))  # accuracy, before a plain `chance`
    return {
        first if key == "chance" else key.replace("chance@", "recall@"): value
        for key, value in values.items()
        if key.startswith("chance")
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) <= 1:
        return f"{value:.3f}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def _short(value: float) -> str:
    """The same without the zero before the point."""
    return _number(value).replace("0.", ".") if abs(value) < 1 else _number(value)


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-")[:60] or "search"


class Leaving(SystemExit):
    """Work is left in the middle; see `main`."""


def main() -> None:
    """The command line, as a program.

    Where work is left in the middle, the interpreter is not asked to end: threads that still load
    data or compile could crash it, and it would wait for processes that wait for this one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's C++ chatter
    try:
        cli()
    except SystemExit as leaving:
        at_once = isinstance(leaving, Leaving) or leaving.code == STOPPED
        if at_once or (leaving.code and _among_others()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else 1)
        raise


def _among_others() -> bool:
    """Whether this is one of several processes."""
    return "jax" in sys.modules and bool(sys.modules["jax"].distributed.is_initialized())
