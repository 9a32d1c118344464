"""`mmcl bench step`: what a training step costs, and where its time goes.

The stage is the very one that `train` builds: the same feed, the same compiled step. What is
measured takes turns, so that what else the machine does hits all of it:

loop    `train`'s loop, but for evaluation, saving and the writing of metrics
alone   the compiled step again and again on one batch that is on the devices already
parts   towers, loss and optimiser, each compiled by itself (`step_parts.py`)
peak    products of large square matrices (`peak.py`)

The loop's time is shared out: to data, while the devices stood still for want of a batch
(`stalls.py`); to each part, as long as it takes by itself; and to `other` what is left: the host's
own work where devices wait for it, and on a CPU that loading takes cores from the step. It is below
0 where the parts take longer by themselves than in one program. Outside XLA is the share of the
loop's time in which no program was running or ready to run: data and host alike.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.table import Table

from mmcl.bench.peak import Peak
from mmcl.bench.step_parts import parts
from mmcl.built_stage import BuiltStage, build
from mmcl.experiment import Stage
from mmcl.feed import Feed
from mmcl.stalls import Stalls
from mmcl.state import TrainState
from mmcl.step import Metrics
from mmcl.train import device_kind, due
from pallas_kernels.pair_reduce.flops import operations

SETTLING = 3  # steps before those of a turn: what was read ahead, two batches, is used up
TURN, TURNS = 5, 4  # steps of a turn at least, and turns at most
TRACED = 3  # steps
PARTS = {
    "data": "data",
    "towers": "towers",
    "loss": "loss",
    "optimizer": "optimiser",
    "other": "other",
}
MOST = {
    "data": "Waiting for data takes",
    "towers": "Towers take",
    "loss": "The loss takes",
    "optimizer": "The optimiser takes",
    "other": "What is none of the parts takes",
}


class Row(NamedTuple):
    """Of one step, on all devices together; shares are of the loop's time.

    Attributes:
        step_s: in the loop.
        alone_s: of the compiled step back to back.
        flops: of the products in the traced program, with what is computed again.
        peak_flops_per_s: of large products on these devices, measured beside it.
        mfu: flops / step_s / peak_flops_per_s; those of the parts by their own time.
        recompiles: programs that were compiled after the first step; there should be none.
        dominated_by: what has the largest share.
    """

    experiment: str
    devices: int
    device_kind: str
    batch_size: int
    steps: int
    steps_per_s: float
    examples_per_s: float
    step_s: float
    alone_s: float
    flops: float
    peak_flops_per_s: float
    mfu: float
    towers_mfu: float
    loss_mfu: float
    data_share: float
    towers_share: float
    loss_share: float
    optimizer_share: float
    other_share: float
    outside_xla_share: float
    recompiles: int
    dominated_by: str


class Lap(NamedTuple):
    """Seconds of some steps.

    Attributes:
        wall: all of them.
        data: while devices had nothing to do for want of a batch.
        idle: while they had nothing to do, for whatever reason.
    """

    wall: float
    data: float
    idle: float


class Loop:
    """`train`'s loop, some steps at a time.

    Attributes:
        state: after the last step.
        batch: that it was made with.
        compiled: how many programs were compiled during steps.
    """

    def __init__(self, built: BuiltStage):
        self._built, self._done = built, built.stage.start
        self._feed = Feed(built, self._done, {})
        self._waits, self._gaps = Stalls(), Stalls()
        self._batches = self._waits.watched(self._feed)
        self._metrics: Metrics = {}
        self.state = built.init()
        self.batch: dict[str, Any] = {}
        self.compiled = 0

    def run(self, steps: int) -> Lap:
        """Make so many steps; devices are idle before and after."""
        jax.block_until_ready(self.state)
        began = time.perf_counter()
        with compilations() as compiled:
            for batch in self._gaps.watched(self._between(steps)):
                self.batch = batch
                with (
                    jax.profiler.StepTraceAnnotation("step", step_num=self._done),
                    jax.transfer_guard("disallow"),
                ):
                    self.state, self._metrics = self._built.train_step(self.state, batch)
                self._gaps.ends(self._waits.stepped(self._metrics["loss"]))
            jax.block_until_ready(self.state)
        wall = time.perf_counter() - began
        self.compiled += len(compiled)
        return Lap(wall, self._waits.seconds(), self._gaps.seconds())

    def close(self) -> None:
        self._waits.close()
        self._gaps.close()

    def _between(self, steps: int) -> Iterator[dict[str, Any]]:
        """All that the host does between steps."""
        for _ in range(steps):
            yield next(self._batches)
            self._done += 1
            self._feed.stepped(self._metrics, self.state)
            if due(self._done, self._built.stage.settings.log_every):
                jax.device_get(self._metrics)


def measured(name: str, stage: Stage, mesh: Mesh, steps: int, trace: Path | None = None) -> Row:
    """Measure a stage's step on a mesh.

    Args:
        name: of the experiment.
        steps: of the loop that are timed, and of all that it is compared with.
        trace: a folder that gets jax's profile of a few more steps; None: none is made.

    Raises:
        InputError: a part refuses its options, or the data cannot be used.
    """
    turns = max(1, min(TURNS, steps // TURN))
    each = [steps // turns + (turn < steps % turns) for turn in range(turns)]
    last = stage.start + 1 + steps + (turns + 1) * SETTLING + TRACED
    built = build(dataclasses.replace(stage, stop=max(stage.stop, last)), mesh)
    took = dict.fromkeys(("wall", "data", "idle", "alone", "towers", "loss", "optimizer"), 0.0)
    with (
        jax.set_mesh(mesh),
        contextlib.closing(Loop(built)) as loop,
    ):
        loop.run(1)
        first = loop.compiled
        loop.run(SETTLING)
        counted = flops(built, loop.state, loop.batch)
        made = parts(built, loop.state, loop.batch)
        loop.state = made.optimizer.run(loop.state)  # compiled
        peak, fastest = Peak(mesh, jnp.dtype(stage.settings.precision)), 0.0
        for count in each:
            loop.run(SETTLING)
            spent = loop.run(count)._asdict()
            step = on(built, loop.batch)
            spent["alone"], loop.state = chained(step, loop.state, count)
            spent["towers"] = _repeated(made.towers.run, loop.state, count)
            spent["loss"] = _repeated(made.loss.run, loop.state, count)
            spent["optimizer"], loop.state = chained(made.optimizer.run, loop.state, count)
            took = {what: took[what] + seconds for what, seconds in spent.items()}
            fastest = max(fastest, peak.flops_per_s(count))
        if trace is not None:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # else Python's own calls fill the trace
            with jax.profiler.trace(trace, profiler_options=options):
                loop.run(TRACED)
    step_s = took["wall"] / steps
    shares = {part: took[part] / took["wall"] for part in PARTS if part != "other"}
    shares["other"] = 1 - sum(shares.values())
    return Row(
        experiment=name,
        devices=mesh.size,
        device_kind=device_kind(mesh),
        batch_size=stage.settings.batch_size,
        steps=steps,
        steps_per_s=1 / step_s,
        examples_per_s=stage.settings.batch_size / step_s,
        step_s=step_s,
        alone_s=took["alone"] / steps,
        flops=counted,
        peak_flops_per_s=fastest,
        mfu=counted / step_s / fastest,
        towers_mfu=made.towers.flops * steps / took["towers"] / fastest,
        loss_mfu=made.loss.flops * steps / took["loss"] / fastest,
        data_share=shares["data"],
        towers_share=shares["towers"],
        loss_share=shares["loss"],
        optimizer_share=shares["optimizer"],
        other_share=shares["other"],
        outside_xla_share=took["idle"] / took["wall"],
        recompiles=loop.compiled - first,
        dominated_by=max(shares, key=lambda part: shares[part]),
    )


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """How many seconds each compilation takes that happens inside."""
    found: list[float] = []

    def note(event: str, duration_secs: float, **more: Any) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def trace_file(folder: Path) -> Path:
    """The newest trace in a folder that `measured` was given."""
    return max(
        folder.glob("plugins/profile/*/*.trace.json.gz"), key=lambda file: file.stat().st_mtime
    )


def table(row: Row) -> Table:
    """Where the time goes."""
    made = Table(box=None, pad_edge=False)
    made.add_column("a step")
    for column in ("ms", "share", "of peak"):
        made.add_column(column, justify="right")
    reached = {"towers": row.towers_mfu, "loss": row.loss_mfu}
    for part, shown in PARTS.items():
        share = getattr(row, f"{part}_share")
        of_peak = f"{reached[part]:.0%}" if part in reached else ""
        made.add_row(shown, f"{1000 * share * row.step_s:,.1f}", f"{share:.1%}", of_peak)
    made.add_row("all", f"{1000 * row.step_s:,.1f}", "", f"{row.mfu:.0%}")
    return made


def summary(row: Row) -> list[str]:
    """What takes most of a step, and what should not be there."""
    part = row.dominated_by
    line = f"{MOST[part]} most of a step, {getattr(row, f'{part}_share'):.0%}"
    reached = {"towers": row.towers_mfu, "loss": row.loss_mfu}
    if part in reached:
        line += f", at {reached[part]:.0%} of the rate of large products"
    lines = [f"{line}."]
    if part == "data":
        lines[0] += " Raise config.threads or config.workers."
    line = f"Outside XLA: {row.outside_xla_share:.1%}. Alone the compiled step takes "
    line += f"{1000 * row.alone_s:,.1f} ms"
    if row.device_kind == "cpu":
        line += ": loading takes cores from it"
    lines.append(f"{line}.")
    if row.recompiles:
        lines.append(f"Compiled again {row.recompiles} times after the first step.")
    return lines


def on(built: BuiltStage, batch: Mapping[str, Any]) -> Callable[[TrainState], TrainState]:
    """The compiled step on one batch: state -> next state."""
    return lambda state: built.train_step(state, batch)[0]


def flops(built: BuiltStage, state: TrainState, batch: Mapping[str, Any]) -> float:
    """Of the products that a step makes, in the traced program."""
    traced = built.train_step.trace(state, batch)  # type: ignore[attr-defined]
    return operations(traced.jaxpr.jaxpr)


def chained(
    step: Callable[[TrainState], TrainState], state: TrainState, count: int
) -> tuple[float, TrainState]:
    """Seconds of so many steps, each from the state that the one before left; and the last."""
    began = time.perf_counter()
    for _ in range(count):
        state = step(state)
    jax.block_until_ready(state)
    return time.perf_counter() - began, state


def _repeated(run: Callable[[TrainState], Any], state: TrainState, count: int) -> float:
    """Seconds of so many runs, one after another."""
    began = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(run(state))
    return time.perf_counter() - began
