"""`mmcl bench loss --autotune`: the fastest way to compute each objective, kept in a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from rich.table import Table

from data_pipelines import cache
from mmcl import engine_choices, workdir
from mmcl.bench import cases
from mmcl.bench.row import reason
from mmcl.mesh import data_mesh
from pallas_kernels.pair_reduce.autotune import Trial, autotune


class Row(NamedTuple):
    """One thing that was tried for a call, the other calls of its loss as they are best so far."""

    case: str
    batch: int
    dim: int
    dtype: str
    call: str
    impl: str
    comm: str | None  # how devices meet; None on one
    blocks: tuple[int, int]
    seconds: float | None  # of the whole loss, forward and backward; None where it failed
    chosen: bool


def default_file() -> Path:
    """Where choices are kept where nobody says otherwise."""
    return cache.root() / engine_choices.FILE


def check(file: Path) -> None:
    """The file can be added to, or made; nothing is written.

    Raises:
        InputError: it is damaged, or its folder cannot be written.
    """
    workdir.writable(file.parent, "--engine")
    engine_choices.read(file, engine_choices.MEASURED)


def device_kind() -> str:
    """The device that is measured, as a run on it is kept in engine.json."""
    return str(jax.devices()[0].device_kind)


def rows(
    name: str,
    batch: int,
    dim: int,
    dtype: str,
    repeats: int,
    file: Path,
    note: Callable[[str], None],
) -> list[Row]:
    """Tune the loss called `name` on the devices of this machine, and add what is best to the file.

    Args:
        batch, dim: B records, D wide: a run's choices are found by its batch size.
        note: hears of what failed, a line each.

    Raises:
        InputError: the file is damaged, or cannot be written.
    """
    trials: list[Trial] = []

    def tried(trial: Trial) -> None:
        trials.append(trial)
        if trial.error is not None:
            how = f"{trial.choice.impl} {_tile(trial.choice.blocks)}"
            note(f"{name} {how}: {reason(trial.error)}")

    try:
        case = cases.build(name, batch, dim, dtype)
        with jax.set_mesh(data_mesh()):
            tuned = autotune(case.function, case.args, repeats=repeats, tried=tried)
    except Exception as error:  # whatever it is, the other losses are tuned
        note(f"{name}: {reason(error)}")
        return []
    if tuned:
        engine_choices.add(file, device_kind(), tuned)
    elif not trials:
        note(f"{name}: it does not call the pair engine.")
    return [
        Row(
            name,
            batch,
            dim,
            dtype,
            trial.call,
            trial.choice.impl,
            trial.choice.comm,
            trial.choice.blocks,
            None if trial.error is not None else trial.seconds,
            tuned.get(trial.call) == trial.choice._asdict(),
        )
        for trial in trials
    ]


def table(rows: Sequence[Row]) -> Table:
    """What was tried, in its order."""
    made = Table(box=None, pad_edge=False)
    for column in ("loss", "call", "impl"):
        made.add_column(column, overflow="fold")
    clock = "CPU s" if jax.default_backend() == "cpu" else "wall s"
    for column in ("tile", clock):
        made.add_column(column, justify="right")
    made.add_column()
    for row in rows:
        made.add_row(
            row.case,
            row.call,
            f"{row.impl} {row.comm}" if row.comm else row.impl,
            _tile(row.blocks),
            "failed" if row.seconds is None else f"{row.seconds:.3g}",
            "chosen" if row.chosen else "",
        )
    return made


def _tile(blocks: tuple[int, int]) -> str:
    return f"{blocks[0]} × {blocks[1]}"
