"""The command `mmcl inspect`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.syntax import Syntax
from rich.table import Table

from mmcl import config as configs
from mmcl.command import console, debug_option, errors, one_word

if TYPE_CHECKING:
    from mmcl.built_stage import BuiltStage
    from mmcl.sharding import Placed

RULE = "`mmcl inspect` takes one FILE[:ARG]"
OPTIONS = ["--devices", "--all", "--json", "--config.KEY=VALUE", "--debug", "--help"]
EXAMPLES = 64  # of a batch, that are looked at
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="An experiment before it runs: config, parameters, a batch.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="FILE[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--devices",
    type=click.IntRange(1),
    metavar="N",
    help="Share out over so many.  [default: those of this machine]",
)
@click.option("--all", "everything", is_flag=True, help="List the optimiser's arrays as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@debug_option
def inspect(
    words: Sequence[str], devices: int | None, everything: bool, as_json: bool, debug: bool
) -> None:
    """Look at an experiment before it runs: its resolved config; every parameter,
    its shape and bytes and over which axes of the mesh it is shared out; what
    every device holds whole; and one batch.

    \b
      mmcl inspect experiments/quickstart.py
      mmcl inspect experiments/quickstart.py --devices 32 --config.mesh.fsdp=8

    Nothing is computed. For what a source holds, see `mmcl data inspect`.
    """
    with errors(debug):
        experiment, overrides = one_word(words, RULE, OPTIONS)
        config = configs.load(experiment, overrides)
        import jax  # these take a second to import

        from mmcl import experiment as experiments
        from mmcl.built_stage import build
        from mmcl.mesh import abstract_mesh
        from mmcl.sharding import Placed

        stage = experiments.stages(config)[0]
        mesh = abstract_mesh(stage.settings.mesh, devices or jax.device_count())
        built = build(stage, mesh)
        placed = jax.tree.leaves(built.placed, is_leaf=lambda one: isinstance(one, Placed))
        batch = list(_batch(built))
        if as_json:
            listed = [one._asdict() for one in placed]
            found = {"config": config, "mesh": dict(mesh.shape), "state": listed, "batch": batch}
            click.echo(json.dumps(found))
            return
        out = console()
        out.print(Syntax(json.dumps(config, indent=2), "json", background_color="default"))
        click.echo(f"\nMesh: {' × '.join(f'{name} {n}' for name, n in mesh.shape.items())}\n")
        shown = [one for one in placed if everything or one.name.startswith("params/")]
        out.print(_state_table(shown))
        click.echo()
        out.print(_totals_table(placed))
        click.echo(_told_whole(placed))
        click.echo(f"\nA batch of {stage.settings.batch_size:,}; of its first examples:")
        out.print(_batch_table(batch))


def _batch(built: "BuiltStage") -> Iterator[dict[str, Any]]:
    """What is in the first examples of the first batch, array by array."""
    from data_pipelines.loader import train_batches

    settings = built.stage.settings
    places = range(min(EXAMPLES, settings.batch_size))
    batches = train_batches(
        built.source,
        built.pipeline,
        built.order(),
        batch_size=settings.batch_size,
        start=0,
        stop=1,
        places=places,
        threads=settings.threads,
    )
    for name, value in _leaves(next(batches)):
        x = np.asarray(value)
        row: dict[str, Any] = {
            "name": name,
            "shape": [settings.batch_size, *x.shape[1:]],
            "dtype": str(x.dtype),
        }
        if x.dtype == bool:
            row["mean"] = float(x.mean())
        elif np.issubdtype(x.dtype, np.number):
            row |= {"least": float(x.min()), "mean": float(x.mean()), "most": float(x.max())}
        else:
            row["dtype"], row["first"] = type(x.flat[0]).__name__, str(x.flat[0])[:60]
        yield row


def _leaves(batch: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in batch.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}/")
        elif key != "rejected":
            yield above + key, value


def _state_table(placed: Sequence["Placed"]) -> Table:
    table = _table("array", "shape", "dtype", "cut over", ">bytes", ">on a device")
    for one in placed:
        axes = ", ".join(" × ".join(over) or "·" for over in one.axes)
        table.add_row(
            one.name,
            " × ".join(map(str, one.shape)) or "scalar",
            one.dtype,
            axes if any(one.axes) else "",
            size(one.nbytes),
            size(one.device_nbytes),
        )
    return table


def _totals_table(placed: Sequence["Placed"]) -> Table:
    table = _table("", ">arrays", ">numbers", ">bytes", ">on a device")
    parts: dict[str, list[Placed]] = {}
    for one in placed:
        first, *rest = one.name.split("/")
        parts.setdefault(f"{first}/{rest[0]}" if first == "params" else first, []).append(one)
    for name, part in [*parts.items(), ("all", list(placed))]:
        table.add_row(
            name,
            f"{len(part):,}",
            f"{sum(int(np.prod(one.shape)) for one in part):,}",
            size(sum(one.nbytes for one in part)),
            size(sum(one.device_nbytes for one in part)),
        )
    return table


def _told_whole(placed: Sequence["Placed"]) -> str:
    whole = [one for one in placed if not any(one.axes)]
    largest = max(whole, key=lambda one: one.nbytes)
    return (
        f"Every device holds {len(whole)} arrays whole, {size(sum(o.nbytes for o in whole))}; the "
        f"largest is {largest.name}, {size(largest.nbytes)}."
    )


def _batch_table(batch: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("array", "shape", "dtype", ">least", ">mean", ">most")
    for row in batch:
        numbers = [f"{row[key]:.4g}" if key in row else "" for key in ("least", "mean", "most")]
        shape = " × ".join(map(str, row["shape"]))
        table.add_row(row["name"], shape, row["dtype"], *(numbers if "mean" in row else []))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table


def size(nbytes: float) -> str:
    """`1536` -> `1.5 KiB`."""
    unit = 0
    while nbytes >= 1024 and unit < len(UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    return (
        f"{nbytes:.0f} {UNITS[unit]}"
        if unit == 0 or nbytes >= 100
        else f"{nbytes:.1f} {UNITS[unit]}"
    )
