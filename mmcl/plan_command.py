"""The command `mmcl plan`."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl.command import console, debug_option, errors, note, one_word
from mmcl.inspect_command import size

if TYPE_CHECKING:
    from mmcl.plan.plan import Plan

RULE = "`mmcl plan` takes one FILE[:ARG]"
OPTIONS = ["--topology", "--batch", "--stage", "--fit", "--price", "--json"]
OPTIONS += ["--config.KEY=VALUE", "--debug", "--help"]
MEMORY = {
    "params_bytes": "parameters",
    "optimizer_bytes": "optimiser",
    "ema_bytes": "averaged parameters",
    "objective_bytes": "objective's memory",
    "batch_bytes": "batch",
    "loss_temp_bytes": "loss",
    "activation_bytes": "activations, gradients, the rest",
}


@click.command(
    context_settings={"ignore_unknown_options": True},
    short_help="What a training needs of devices that are not here.",
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="FILE[:ARG] [--config.KEY=VALUE ...]",
)
@click.option(
    "--topology",
    required=True,
    metavar="NAME",
    help="Devices: v5e:16x16, v6e:8x8, v5p:4x4x8*2 (slices), tpu7x:4x4x4, h100:32x8 (machines × "
    "GPUs).",
)
@click.option("--batch", type=click.IntRange(1), metavar="B", help="In place of the config's.")
@click.option(
    "--stage", type=click.IntRange(0), default=0, show_default=True, help="Of several stages."
)
@click.option(
    "--fit",
    type=click.Choice(["batch", "mesh"]),
    help="Find the largest batch that fits; or the mesh, and what is computed again, with which "
    "this one does.",
)
@click.option(
    "--price", type=click.FloatRange(0), metavar="P", help="Of one device for an hour, in money."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@debug_option
def plan(
    words: Sequence[str],
    topology: str,
    batch: int | None,
    stage: int,
    fit: str | None,
    price: float | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Compile an experiment's training step for devices that are not here, and say
    what it needs of each: memory by what it is for, operations, bytes over the
    links; how long a step takes at least, by the data sheet; and what the whole
    run costs. Nothing runs, and nothing of it is a measurement.

    \b
      mmcl plan experiments/siglip_b16.py --topology v5e:16x16
      mmcl plan my/experiment.py --topology v5p:8x8x4 --batch 262144 --json
      mmcl plan my/experiment.py --topology h100:4x8 --fit batch

    Parameters are shared out as config.mesh says; `mmcl inspect` lists them.
    TPUs need `pip install 'mmcl[tpu]'` here, GPUs 'mmcl[cuda]'.
    """
    with errors(debug):
        experiment, overrides = one_word(words, RULE, OPTIONS)
        if batch is not None:
            overrides.append(("batch_size", str(batch)))
        config = configs.load(experiment, overrides)
        from mmcl import experiment as experiments
        from mmcl.plan.fit import batch_that_fits, mesh_that_fits
        from mmcl.plan.plan import plan as made
        from mmcl.plan.topology import topology as devices

        stages = experiments.stages(config)
        if stage >= len(stages):
            raise InputError(f"--stage: {stage}, but there are {len(stages)}, from 0.")
        on = devices(topology)
        with Console(stderr=True).status(f"compiling for {topology}"):
            if fit == "batch":
                found = batch_that_fits(stages[stage], on, note)
            elif fit == "mesh":
                found = mesh_that_fits(config, stage, on, note)
            else:
                found = made(stages[stage], on)
        if as_json:
            cost = {} if price is None else {"cost": price * found.device_hours}
            click.echo(json.dumps({**found._asdict(), **cost}))
        else:
            _print(found, price)


def _print(plan: "Plan", price: float | None) -> None:
    out = console()
    mesh = " × ".join(f"{axis} {n}" for axis, n in plan.mesh.items())
    click.echo(f"{plan.devices} devices of {plan.topology} ({mesh}), batch {plan.batch_size:,}")
    memory = _table("memory of a device", "")
    for key, what in MEMORY.items():
        if getattr(plan, key):
            memory.add_row(f"  {what}", size(getattr(plan, key)))
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    memory.add_row("peak", f"{size(plan.peak_bytes)} of {size(plan.hbm_bytes)}: {verdict}")
    out.print(memory)
    time = _table("a step, at least", "")
    time.add_row("  products", f"{_ms(plan.products_s)}  {plan.flops / 1e12:,.2f} TFLOP")
    if plan.collective_bytes is not None and plan.moved_bytes is not None:
        time.add_row("  memory", f"{_ms(plan.memory_s)}  {size(plan.moved_bytes)}")
        sent = ", ".join(f"{kind} {size(n)}" for kind, n in plan.collective_bytes.items() if n)
        time.add_row("  links", f"{_ms(plan.links_s)}  {sent}")
        if plan.network_s:
            time.add_row("  network", _ms(plan.network_s))
    time.add_row(f"limited by {plan.limited_by}", _ms(plan.step_s))
    out.print(time)
    hours = f"{plan.device_hours:,.1f} device-hours for {plan.steps:,} steps"
    cost = "" if price is None else f", {price * plan.device_hours:,.0f} at {price:g} an hour"
    click.echo(f"{plan.examples_per_s:,.0f} examples/s at most; {hours}{cost}")


def _ms(seconds: float | None) -> str:
    return f"{1000 * (seconds or 0):,.2f} ms"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
