"""The command `mmcl data inspect`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from data_pipelines.errors import InputError
from data_pipelines.open_source import open_source
from mmcl import workdir as workdirs
from mmcl.command import debug_option, errors, one_word
from mmcl.data_spec import config_of, is_experiment, name_of_spec

if TYPE_CHECKING:
    from mmcl.inspect.look import Looked

RULE = "`mmcl data inspect` takes one SPEC"
OPTIONS = [
    "--split",
    "--records",
    "--cards",
    "--out",
    "--json",
    "--config.KEY=VALUE",
    "--debug",
    "--help",
]


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="What is in a source, and what a model receives of it.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="SPEC [--config.KEY=VALUE ...]",
)
@click.option("--split", help="Which split.  [default: what is trained on]")
@click.option(
    "--records",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="How many to look at, evenly spread.",
)
@click.option(
    "--cards", default=24, show_default=True, type=click.IntRange(0), help="How many to lay out."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/data-NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@debug_option
def inspect(
    words: Sequence[str],
    split: str | None,
    records: int,
    cards: int,
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """What is in a source, and what a model receives of it: counts, texts, faults,
    and a page with records as stored and as training sees them, augmented.

    \b
    SPEC  an experiment, for what its model receives; or data alone: files, a
          folder that `mmcl data convert` or TFDS wrote, or the section of a
          source as a JSON file
    KEY   any key of its config; of files the section is `source`

    \b
      mmcl data inspect experiments/quickstart.py
      mmcl data inspect 'data/{000..009}.tar'
      mmcl data inspect train.parquet --config.source.fields.text=caption
    """
    with errors(debug):
        spec, overrides = one_word(words, RULE, OPTIONS)
        config = config_of(spec, split, overrides)
        name = name_of_spec(spec)
        out = out or Path("runs") / f"data-{name}"
        workdirs.writable(out, "--out")
        from mmcl import experiment  # these take a second to import
        from mmcl.inspect.look import look
        from mmcl.inspect.page import draw_sheet, plain, write_page

        pipeline, seed = None, 0
        if is_experiment(spec):
            settings = experiment.stages(config)[0].settings
            source = experiment.open_source(settings)
            pipeline, seed = experiment.build_pipeline(settings, source), settings.seed
        else:
            source = open_source(config["source"])
            if not len(source):
                raise InputError(f"{spec} has no records.")
        looked = look(source, pipeline, seed=seed, records=records, cards=cards)
        if as_json:
            click.echo(json.dumps(plain(looked), ensure_ascii=False))
        else:
            _print(looked)
        try:
            out.mkdir(parents=True, exist_ok=True)
            page = write_page(out / "inspect.html", spec, looked)
            draw_sheet(name, looked).save(out / "sheet.png")
        except OSError as error:
            raise InputError(f"--out: {out} cannot be written ({error.strerror}).") from error
        if not as_json:
            click.echo(f"Page: {page}\nContact sheet: {out / 'sheet.png'}")


def _print(looked: "Looked") -> None:
    from data_pipelines.faults import by_kind
    from mmcl.inspect.counts import QUANTILES
    from mmcl.inspect.look import faults

    seen = f", {looked.seen:,} of them looked at" if looked.seen < looked.records else ""
    click.echo(f"{looked.records:,} records{seen}")
    console = Console()
    entries = _table("entry", "what it is", ">there", ">different values")
    for entry in looked.entries:
        kinds = ", ".join(kind for kind, _ in entry.kinds.most_common(3))
        more = f" and {len(entry.kinds) - 3} more" if len(entry.kinds) > 3 else ""
        different = f"{len(entry.values):,}" if entry.values else ""
        entries.add_row(entry.name, kinds + more, f"{entry.there:,}", different)
    console.print(entries)
    if looked.captions:
        texts = _table("texts", ">how many", *(f">{q}" for q in QUANTILES), ">without a letter")
        for text in looked.captions:
            for what in ("letters", "words", "per_record"):
                quantiles = [f"{n:,}" for n in getattr(text, what).values()]
                label = f"{text.name}: {what.replace('_', ' ')}"
                texts.add_row(label, f"{text.count:,}", *quantiles, f"{text.blank:,}")
        console.print(texts)
    if looked.tokens:
        tokens = _table("places", ">there are", *(f">{q}" for q in QUANTILES), ">all used")
        for one in looked.tokens:
            used = [f"{n:,}" for n in one.used.values()]
            tokens.add_row(one.modality, f"{one.places:,}", *used, f"{one.full:.1%}")
        console.print(tokens)
    if looked.rejected:
        click.echo(f"{len(looked.rejected):,} cannot be used: {by_kind(faults(looked))}")


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table
