"""The commands of `mmcl bench`."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import workdir
from mmcl.command import Teaching, console, debug_option, errors, note, one_word

STEP_RULE = "`mmcl bench step` takes one FILE[:ARG]"
STEP_OPTIONS = ["--steps", "--json", "--trace", "--against", "--config.KEY=VALUE", "--debug"]


@click.group(
    cls=Teaching,
    invoke_without_command=True,
    short_help="Measure steps, losses and data on this machine.",
)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure what parts of a training cost on this machine.

    \b
      mmcl bench step experiments/quickstart.py
      mmcl bench loss
      mmcl bench loss --batch 16384 --cases clip,siglip --json
      mmcl bench loss --autotune --cases clip
      mmcl bench data
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@bench.command(
    context_settings={"ignore_unknown_options": True},
    short_help="A training step: how long, and where the time goes.",
)
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="FILE[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--steps",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="That are timed, after the first ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--trace",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write a profile of three more steps there.",
)
@click.option(
    "--against",
    type=click.Choice(["open_clip"]),
    help="Train open_clip's model of the same sizes in turn, on the CPU.",
)
@debug_option
def step(
    words: Sequence[str],
    steps: int,
    as_json: bool,
    trace: Path | None,
    against: str | None,
    debug: bool,
) -> None:
    """Measure the training step of an experiment, fed and compiled as in `mmcl train`.

    \b
    data       devices wait for a batch
    towers     forward and backward
    loss       with its gradients to the embeddings
    optimiser  with the averaged parameters
    other      the rest: the host; on a CPU, loading takes cores from the step
    of peak    products a second, over those of large matrices here

    \b
      mmcl bench step experiments/quickstart.py
      mmcl bench step my/experiment.py --config.batch_size=1024 --json
      mmcl bench step my/experiment.py --trace /tmp/trace

    With --against open_clip, its model of the same sizes is trained beside the
    experiment, whose towers are `vit` and `text`, in float32 by AdamW, both with
    the batch in memory, and with its blocks checkpointed where `remat` of both
    towers is "full". Where no FILE is given, they are ViT-S/16's.

    \b
      mmcl bench step --against open_clip --steps 3
      mmcl bench step --against open_clip --config.batch_size=256
    """
    with errors(debug):
        if against is not None:
            return _against(words, steps, as_json, trace)
        name, overrides = one_word(words, STEP_RULE, STEP_OPTIONS)
        if trace is not None:
            workdir.writable(trace, "--trace")
        config = configs.load(name, overrides)
        from mmcl import experiment as experiments
        from mmcl.bench import step as measure
        from mmcl.mesh import make_mesh

        stage = experiments.stages(config)[0]
        with Console(stderr=True).status("measuring"):
            row = measure.measured(name, stage, make_mesh(stage.settings.mesh), steps, trace)
        if as_json:
            click.echo(json.dumps(row._asdict(), indent=2))
        else:
            click.echo(
                f"batch {row.batch_size:,} on {row.devices} × {row.device_kind}: "
                f"{row.steps_per_s:.3g} steps/s, {row.examples_per_s:,.0f} examples/s, "
                f"{row.flops / 1e9:,.3g} GFLOP a step; large products: "
                f"{row.peak_flops_per_s / 1e9:,.0f} GFLOP/s"
            )
            console().print(measure.table(row))
            for line in measure.summary(row):
                click.echo(line)
        if trace is not None:
            note(
                f"Trace: {measure.trace_file(trace)}; open it at https://ui.perfetto.dev, or "
                f"run `xprof --logdir {trace}`."
            )


@bench.command(short_help="Processor time and memory of every loss, beside open_clip.")
@click.option(
    "--batch", type=click.IntRange(1), metavar="B", help="Records in the batch.  [default: 4096]"
)
@click.option(
    "--dim", type=click.IntRange(1), metavar="D", help="Width of the embeddings.  [default: 512]"
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the embeddings; statistics and parameters are float32.",
)
@click.option(
    "--spec",
    "spec_name",
    metavar="NAME",
    help="B and D of a published training, e.g. clip-vit-b-32.",
)
@click.option(
    "--cases",
    multiple=True,
    metavar="NAMES",
    help="Losses, separated by commas: clip, siglip, or a file in mmcl/objectives.  [default: all]",
)
@click.option(
    "--impl",
    "impls",
    multiple=True,
    metavar="NAMES",
    help="Implementations of the pair engine, and open_clip.  [default: xla,open_clip]",
)
@click.option(
    "--repeats",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Runs of each; the best counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--autotune",
    is_flag=True,
    help="Find the fastest implementation and tile of each loss instead, and keep them in a file.",
)
@click.option(
    "--engine",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="That file.  [default: engine.json in $MMCL_CACHE or ~/.cache/mmcl]",
)
@click.option(
    "--roofline",
    metavar="KIND",
    help="Measure nothing; what a device of this kind takes at least, by its data sheet.",
)
@debug_option
def loss(
    batch: int | None,
    dim: int | None,
    dtype: str,
    spec_name: str | None,
    cases: Sequence[str],
    impls: Sequence[str],
    repeats: int,
    as_json: bool,
    autotune: bool,
    engine: Path | None,
    roofline: str | None,
    debug: bool,
) -> None:
    """Measure the losses: value and gradients to both embeddings and to the
    loss's own parameters, each in a process of its own.

    \b
    CPU s     processor time of all threads: steady on a busy machine
    peak MiB  growth of the process above its inputs, gradients included
    temp MiB  what the compiler sets aside, gradients not included
    products  B×B×D products in the traced program; last column: CPU s over
              what these alone take

    \b
      mmcl bench loss
      mmcl bench loss --batch 16384 --cases clip,siglip
      mmcl bench loss --cases clip --impl reference,xla --json

    With --autotune, the engine's implementations and tile sizes are tried on
    this machine's devices. A run begins with the fastest only where it is told
    to; they are found again by its objective, batch size and devices.

    \b
      mmcl bench loss --autotune --batch 4096 --cases clip
      mmcl train my/experiment.py --engine ~/.cache/mmcl/engine.json
    """
    with errors(debug):
        from mmcl.bench import loss as losses

        batch, dim = _sizes(spec_name, batch, dim)
        if autotune:
            if impls:
                raise InputError("--impl: --autotune tries all that run here; leave it out.")
            names = losses.chosen(_listed(cases))
            return _autotune(names, batch, dim, dtype, repeats, engine, as_json)
        if engine is not None:
            raise InputError("--engine: is the file of --autotune, which is missing.")
        if roofline is not None:
            return _roofline(losses.chosen(_listed(cases)), batch, dim, dtype, roofline, as_json)
        pairs = losses.plan(_listed(cases), _listed(impls), note)
        rows = []
        with Console(stderr=True).status("") as status:
            for number, (name, impl) in enumerate(pairs, 1):
                status.update(f"{name} {impl} ({number} of {len(pairs)})")
                rows.append(losses.row(name, impl, batch, dim, dtype, repeats, note))
        if as_json:
            click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        else:
            click.echo(f"batch {batch:,} × {dim}, {dtype}, forward and backward")
            console().print(losses.table(rows))
            for line in losses.comparisons(rows):
                click.echo(line)


@bench.command(
    "data", short_help="Records per second of every format, beside torch with webdataset."
)
@click.option(
    "--formats",
    multiple=True,
    metavar="NAMES",
    help="Separated by commas: arrayrecord, webdataset, parquet, jsonl, arrays, tfds.  "
    "[default: all]",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Your own photographs (JPEG).  [default: drawn pictures of 500 × 375]",
)
@click.option(
    "--records", default=5000, show_default=True, type=click.IntRange(1), help="Pictures."
)
@click.option(
    "--size", default=224, show_default=True, type=click.IntRange(1), help="Side of the crop."
)
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), metavar="B")
@click.option(
    "--batches",
    default=40,
    show_default=True,
    type=click.IntRange(4),
    help="Of one run; the first ones are not timed.",
)
@click.option(
    "--repeats",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Pairs of runs; medians count.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@debug_option
def bench_data(
    formats: Sequence[str],
    images: Path | None,
    records: int,
    size: int,
    batch: int,
    batches: int,
    repeats: int,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure how quickly pictures are read, cropped at random, mirrored and
    put into batches, from each format, and by torch's DataLoader with the
    webdataset library from the same tars.

    \b
    full    both sides decode whole files by Pillow
    best    each decodes as quickly as it can
    CPU ms  processor time of a record: steady on a busy machine

    \b
      mmcl bench data
      mmcl bench data --formats webdataset --images ~/photographs --json
    """
    with errors(debug):
        import tempfile

        from mmcl.bench import data as measure
        from mmcl.bench import pictures

        names = measure.chosen(_listed(formats))
        found = (
            pictures.photographs(images, records) if images is not None else pictures.drawn(records)
        )
        with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("measuring"):
            sections = measure.written(Path(folder), found, names)
            rows = measure.rows(
                sections,
                names,
                size=size,
                batch=batch,
                batches=batches,
                repeats=repeats,
                note=note,
            )
        if as_json:
            click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        else:
            load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
            click.echo(
                f"{records:,} pictures to {size} × {size}, batches of {batch}; {os.cpu_count()} "
                f"cores, load average {load}"
            )
            console().print(measure.table(rows))


def _against(words: Sequence[str], steps: int, as_json: bool, trace: Path | None) -> None:
    """Show what a step costs beside open_clip's."""
    if trace is not None:
        raise InputError("--trace: is of one step by itself; leave --against out.")
    name, overrides = one_word(words, STEP_RULE, STEP_OPTIONS, default="")
    from mmcl.bench import step_against, vit_s_16

    if name:
        config = configs.load(name, overrides)
    else:
        config = vit_s_16.config()
        for key, text in overrides:
            configs.override(config, key, text)
    with Console(stderr=True).status("measuring"):
        row = step_against.beside(name, config, steps)
    if as_json:
        click.echo(json.dumps(row._asdict(), indent=2))
        return
    click.echo(
        f"{row.experiment}, batch {row.batch_size:,}, float32, {row.threads} threads, "
        f"{row.turns} steps each in turn"
    )
    console().print(step_against.table(row))
    click.echo(step_against.summary(row))


def _roofline(
    names: Sequence[str], batch: int, dim: int, dtype: str, kind: str, as_json: bool
) -> None:
    """Show what these losses take at least on a device of a kind."""
    from mmcl.bench import roofline

    roofline.chip(kind)
    rows = roofline.rows(names, batch, dim, dtype, kind, note)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    click.echo(f"batch {batch:,} × {dim}, {dtype}, forward and backward, on one {kind}")
    click.echo("An estimate from its data sheet, not a measurement: products in bfloat16.")
    console().print(roofline.table(rows))


def _autotune(
    names: Sequence[str],
    batch: int,
    dim: int,
    dtype: str,
    repeats: int,
    engine: Path | None,
    as_json: bool,
) -> None:
    """Find the fastest choices for these losses, keep them in a file, and show what was tried."""
    from mmcl.bench import autotune as tuning

    file = engine or tuning.default_file()
    tuning.check(file)
    tried = []
    with Console(stderr=True).status("") as status:
        for number, name in enumerate(names, 1):
            status.update(f"{name} ({number} of {len(names)})")
            tried += tuning.rows(name, batch, dim, dtype, repeats, file, note)
    kind = tuning.device_kind()
    if as_json:
        listed = [row._asdict() for row in tried]
        click.echo(json.dumps({"device": kind, "engine": str(file), "tried": listed}, indent=2))
        return
    click.echo(f"batch {batch:,} × {dim}, {dtype}, forward and backward, on {kind}")
    console().print(tuning.table(tried))
    if any(row.chosen for row in tried):
        words = shlex.join(["--engine", str(file)])
        click.echo(f"Choices: {file}\nTrain with them: mmcl train FILE {words}")


def _sizes(spec_name: str | None, batch: int | None, dim: int | None) -> tuple[int, int]:
    """B and D: those named, else of the published training, else the usual ones."""
    from mmcl.bench.loss import spec

    sizes = spec(spec_name) if spec_name is not None else None
    return batch or (sizes.batch if sizes else 4096), dim or (sizes.dim if sizes else 512)


def _listed(words: Sequence[str]) -> list[str]:
    """What is separated by commas or given in several options, each once."""
    listed = [name.strip() for word in words for name in word.split(",")]
    return list(dict.fromkeys(name for name in listed if name))
