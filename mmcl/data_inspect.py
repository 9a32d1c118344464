"""The command `mmcl data inspect`."""

from pathlib import Path

import click

from mmcl.command import debug_option


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="Count and show what is in a source, and what a model receives of it.",
)
@click.argument(
    "words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SPEC [--KEY=VALUE ...]"
)
@click.option("--split", help="Which split.  [default: what is trained on]")
@click.option(
    "--records", default=1000, show_default=True, type=click.IntRange(1), help="To look at."
)
@click.option("--cards", default=24, show_default=True, type=click.IntRange(0), help="To lay out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/data-NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@debug_option
def inspect(
    words: tuple[str, ...],
    split: str | None,
    records: int,
    cards: int,
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Count and show what is in a source, and what a model receives of it."""
