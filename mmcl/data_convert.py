"""The command `mmcl data convert`."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from data_pipelines.errors import InputError
from data_pipelines.progress import Bar
from mmcl.command import debug_option, errors, one_word
from mmcl.data_spec import config_of

RULE = "`mmcl data convert` takes one SPEC and, with --out, a folder"
OPTIONS = ["--out", "--to", "--split", "--shard", "--config.KEY=VALUE", "--debug", "--help"]


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="Write data in another format, checked record by record.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="SPEC [--config.KEY=VALUE ...]",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder that gets the data."
)
@click.option(
    "--to",
    required=True,
    metavar="FORMAT",
    help="arrayrecord, webdataset, parquet, jsonl, csv, or a module of yours.",
)
@click.option("--split", help="Which split.  [default: what the section says]")
@click.option(
    "--shard",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="Records of a file.",
)
@debug_option
def convert(
    words: Sequence[str], out: Path, to: str, split: str | None, shard: int, debug: bool
) -> None:
    """Write data in another format, shard by shard; every shard is read back and
    compared with what it was made of. The same command goes on with what was
    stopped.

    \b
    SPEC  files, a folder that TFDS prepared, the section of a source as a JSON
          file, or an experiment, whose source it is

    \b
      mmcl data convert experiments/molecules.py --to parquet --out molecules
      mmcl data convert 'cc/{00000..00331}.tar' --to arrayrecord --out cc-records

    The folder's source.json is the section to put into an experiment.
    """
    with errors(debug, stopped="Stopped; the same command goes on with the next shard."):
        spec, overrides = one_word(words, RULE, OPTIONS)
        section = config_of(spec, split, overrides)["source"]
        if to == "tfds":
            raise InputError("--to: only TensorFlow Datasets writes tfds; arrayrecord is nearest.")
        from data_pipelines.convert import REJECTED, SECTION
        from data_pipelines.convert import convert as converted
        from data_pipelines.open_source import open_source

        total = len(open_source(section))
        with Bar("converting", total) as bar:
            made = converted(section, out, to, shard=shard, advance=bar.advance)
        click.echo(f"{made.records:,} records, each read back as it was written.")
        if made.rejected:
            kinds = Counter(reject["kind"] for reject in made.rejected)
            told = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in kinds.most_common())
            click.echo(f"{len(made.rejected):,} left out: {told}; see {out / REJECTED}")
        click.echo(f"Section: {out / SECTION}")
        click.echo(f"Look at it: {shlex.join(['mmcl', 'data', 'inspect', str(out)])}")
