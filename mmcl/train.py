"""The one training loop, for every experiment: data -> step -> evaluate -> log -> save."""

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.console import Console

from data_pipelines.errors import InputError
from data_pipelines.faults import by_kind
from mmcl import experiment, suites, workdir
from mmcl.bad_steps import BadSteps, Rewound
from mmcl.built_stage import build
from mmcl.checkpoint import Checkpoints, newest_sound, put_aside
from mmcl.engine_choices import ByKind, kept_choices
from mmcl.evals import judged
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, numbers
from mmcl.experiment import Stage
from mmcl.feed import Feed
from mmcl.live import LiveLine
from mmcl.metrics_log import MetricsLog
from mmcl.model import Model
from mmcl.processes import agreed, first_does, is_first
from mmcl.progress import Progress
from mmcl.rejected_log import RejectedLog
from mmcl.stalls import Stalls
from mmcl.state import TrainState
from mmcl.stops import Halted, Stops
from mmcl.wandb_log import WandbLog, check_installed


class Interrupted(Exception):
    """A signal came and the state is saved: the same command goes on from here.

    Attributes:
        by: the signal.
    """

    def __init__(self, by: signal.Signals | None, done: int, total: int):
        why = " by SIGTERM" if by == signal.SIGTERM else ""
        super().__init__(f"Stopped{why} at step {done} of {total}; the state is saved.")
        self.by = by


class Trained(NamedTuple):
    """The final model, and the evaluated splits as it encodes them."""

    model: Model
    splits: list[Embedded]


def train(
    name: str,
    config: dict[str, Any],
    folder: Path,
    console: Console,
    mesh: Mesh,
    engine: ByKind | None = None,
    apart: bool = False,
) -> Trained:
    """Train an experiment in `folder`, going on from its newest checkpoint if there is one that is
    not damaged.

    Args:
        name: the experiment as it was asked for, `FILE[:ARG]`.
        config: its resolved config.
        folder: the workdir; gets config.json, engine.json, checkpoints/, metrics.jsonl,
            evals.json, tensorboard/ and, where records are rejected, rejected.jsonl.
        console: where the live line goes.
        mesh: the devices, along an axis `data`.
        engine: choices for the pair engine to begin with; the run's own engine.json comes first.
        apart: whether `folder` is another one in each process, as `Checkpoints` has it.

    Raises:
        InputError: something the user gave is wrong; nothing half-written is left.
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
    """
    while True:
        try:
            return _run(name, config, folder, console, mesh, engine, apart)
        except Rewound:  # whoever raised it said so
            continue


def _run(
    name: str,
    config: dict[str, Any],
    folder: Path,
    console: Console,
    mesh: Mesh,
    engine: ByKind | None,
    apart: bool,
) -> Trained:
    """`train`, once.

    Raises:
        Rewound: `config.guard` wants it to go back: to be called again.
    """
    stages = experiment.stages(config)
    total = stages[-1].stop
    wandb = stages[0].settings.wandb
    first_does(lambda: check_installed(wandb))
    first_does(lambda: workdir.check(folder, name, config))
    beside = [suites.open_all(stage.settings.eval.suites) for stage in stages]
    with jax.set_mesh(mesh), contextlib.ExitStack() as holding:
        done, damaged = newest_sound(folder, console.print, apart=apart)
        first = next(stage for stage in stages if done <= stage.stop)
        built = build(first, mesh)
        state, clock = built.init(), {"seconds": 0.0, "examples": 0}
        for suite in beside[first.number]:
            suites.of(suite, built.model(state))  # which refuses what it cannot take
        data: dict[str, Any] = {}

        first_does(lambda: holding.enter_context(workdir.alone(folder)))
        first_does(lambda: workdir.create(folder, name, config))
        if apart or is_first():
            put_aside(folder, damaged)
        kept = first.settings.checkpoint
        checkpoints = Checkpoints(
            folder,
            keep=kept.keep,
            keep_every=kept.keep_every,
            best=kept.best,
            apart=apart,
            tell=console.print,
        )
        if done:
            state, data, clock = checkpoints.restore(state, done)
            done = data["step"]
            console.print(f"Going on from step {done} of {total}.")
        told: list[WandbLog] = []
        if wandb is not None:
            first_does(lambda: told.append(WandbLog(folder, wandb, config)))
        logged = done - 1 if "unjudged" in data else done
        log = MetricsLog(folder, logged, told) if is_first() else None
        source = first.settings.source["name"]
        rejected = RejectedLog(folder, done, data.get("rejected", {}), source)
        bad = BadSteps(folder, console.print)
        splits: list[Embedded] = []
        figures: Figures = {}

        with (
            LiveLine(console, total, done) as live,
            Stops(console.print) as stops,
            kept_choices(folder, device_kind(mesh), engine) as keep_choices,
            contextlib.closing(Stalls()) as stalls,
        ):
            progress = Progress(log, live, stalls, console.print, clock)
            for stage in stages[first.number :]:
                if 0 < done == stage.start:
                    built = build(stage, mesh)
                    state, data = built.enter(state), {}
                settings = stage.settings
                halt = None if settings.checkpoint.best else stops.now
                progress.begin(done, settings.batch_size)
                if unjudged := data.pop("unjudged", None):  # for its evaluation was stopped
                    try:
                        splits, figures = evaluation(
                            built.model(state), rejected, done, halt, beside[stage.number]
                        )
                    except Halted as error:
                        raise Interrupted(stops.by, done, total) from error
                    row = unjudged | numbers(figures) | hardware(mesh)
                    progress.record(done, row, final=done == total)
                    unjudged = None

                feed = Feed(built, done, data, rejected)
                for batch in stalls.watched(feed):
                    done += 1
                    if bad.left_out(done):
                        state, metrics = pass_over(state), {"loss": jnp.float32(jnp.nan)}
                    else:
                        with jax.transfer_guard("disallow"):
                            state, metrics = built.train_step(state, batch)
                        stalls.stepped(metrics["loss"])
                        bad.stepped(done, metrics, batch["index"])
                        keep_choices()
                    live.step(done)
                    feed.stepped(metrics, state)

                    last = done == total
                    evaluating = last or due(done, settings.eval.every)
                    writing = evaluating or done == stage.stop or due(done, settings.log_every)
                    if writing or jax.process_count() == 1:
                        counts = rejected.check(examples(stages, done), settings.faults.share)
                    stopping = stops.now(ctrl_c=writing)
                    saving = last or stopping or due(done, settings.checkpoint.every)
                    if writing or saving:
                        try:
                            bad_steps = bad.check(done, settings.guard, built.source)
                        except (Rewound, InputError):
                            checkpoints.close()
                            raise
                    if writing:
                        row = progress.row(done, metrics)
                        if bad_steps:
                            row["train/bad_steps"] = float(bad_steps)
                        row |= {f"train/{k}": v for k, v in feed.row().items()}
                        row |= {f"train/rejected/{kind}": n for kind, n in counts.items()}
                        try:
                            if evaluating:
                                model = built.model(state)
                                splits, figures = evaluation(
                                    model, rejected, done, halt, beside[stage.number]
                                )
                                row |= numbers(figures) | hardware(mesh)
                            progress.record(done, row, final=last)
                        except Halted:
                            unjudged, stopping, saving = row, True, True

                    better = evaluating and agreed(checkpoints.is_best(row))
                    if saving or better:
                        data = {"step": done, "stage": stage.number, "seed": settings.seed}
                        data |= {"rejected": rejected.counts(), **feed.remembered()}
                        if unjudged:
                            data["unjudged"] = unjudged
                        found = row if evaluating else None
                        checkpoints.save(done, state, data, progress.clock(done), found)
                    if evaluating:
                        checkpoints.check_best(row)
                    if stopping and (unjudged or not last):
                        checkpoints.close()
                        if log is not None:
                            log.close()
                        raise Interrupted(stops.by, done, total)

        if counts := rejected.counts():
            console.print(f"Left out: {by_kind(counts)} records; {rejected.path.name} lists them.")
        if figures and is_first():
            judged.write(folder, done, figures)
        model = built.model(state)
        if not splits:  # there was nothing left to train
            splits = [model.embed(split) for split in stages[-1].settings.eval.splits]
        checkpoints.close()
        if log is not None:
            log.close()
        return Trained(model, splits)


def pass_over(state: TrainState) -> TrainState:
    """The state after a step that is left out."""
    where = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        lambda state: state._replace(step=state.step + 1), donate_argnums=0, out_shardings=where
    )
    passed: TrainState = step(state)
    return passed


def evaluation(
    model: Model,
    rejected: RejectedLog,
    step: int,
    halt: Callable[[], bool] | None,
    beside: Sequence[suites.Opened] = (),
) -> tuple[list[Embedded], Figures]:
    """The splits that are evaluated, encoded, and what the evaluators say of them and of suites.

    Args:
        beside: suites, of which no split is kept, for they may be large.

    Raises:
        Halted: `halt` said so before the end.
    """
    splits = [model.embed(split, halt=halt) for split in model.settings.eval.splits]
    figures: Figures = {}
    for embedded in splits:
        figures |= model.judge(embedded)
        rejected.add_evaluated(step, embedded.split, embedded.rejected)
    for suite in beside:
        of = suites.of(suite, model)
        for split in suite.suite.splits:
            embedded = of.embed(split, halt=halt)
            figures |= of.judge(embedded)
            rejected.add_evaluated(step, of.called(embedded), embedded.rejected)
    return splits, figures


def hardware(mesh: Mesh) -> dict[str, Any]:
    """What the numbers of a row were measured on."""
    devices = f"{mesh.size} × {device_kind(mesh)}"
    return {"hardware/devices": devices, "hardware/cpu_cores": os.cpu_count()}


def device_kind(mesh: Mesh) -> str:
    """What its devices are called: "cpu", "NVIDIA H100 80GB HBM3", ..."""
    return str(mesh.devices.flat[0].device_kind)


def examples(stages: Sequence[Stage], step: int) -> int:
    """How many examples the first so many steps of an experiment take."""
    steps = [max(0, min(step, stage.stop) - stage.start) for stage in stages]
    return sum(n * stage.settings.batch_size for n, stage in zip(steps, stages))


def due(step: int, every: int | None) -> bool:
    """Whether something that happens every so many steps (None: never) happens after this one."""
    return every is not None and step % every == 0
