"""Checkpoints: training state, data state and clock, saved together and asynchronously.

The files of one appear as a whole or not at all, with their checksums: what a kill left half
written is removed by the next run, what was damaged later is noticed before it is used.
"""

import contextlib
import errno
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl import checksums
from mmcl.processes import agreed, any_says, is_first
from mmcl.state import TrainState
from mmcl.workdir import saved_steps

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells every step, and every failure
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and every read of a damaged file


class Restored(NamedTuple):
    state: TrainState
    data: dict[str, Any]  # where the data order stands: {"step": ..., "seed": ...}
    clock: dict[str, float]  # {"seconds": ..., "examples": ...}


def newest_sound(
    workdir: Path, tell: Callable[[str], None], *, apart: bool = False
) -> tuple[int, list[int]]:
    """Step of the newest checkpoint that is as it was written, or 0; and the damaged after it.

    Args:
        tell: who is told of them.
        apart: as `Checkpoints` has it.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    damaged: dict[int, str] = {}
    while step := agreed(max(set(saved_steps(workdir)) - set(damaged), default=0)):
        folder = workdir / "checkpoints" / str(step)
        found = checksums.damage(folder) if apart or is_first() else None
        if not any_says(found is not None):
            break
        damaged[step] = found or "another process tells how"
    if damaged and not step:
        how = "; ".join(f"{at}: {found}" for at, found in damaged.items())
        raise InputError(
            f"All checkpoints in {workdir} are damaged ({how}); train again from the start, in "
            "another folder."
        )
    for at, found in damaged.items():
        tell(f"Checkpoint {at} is damaged ({found}); the one before it is used.")
    return step, list(damaged)


def check_sound(workdir: Path, step: int) -> None:
    """That the checkpoint of a step is as it was written.

    Raises:
        InputError: it is damaged.
    """
    at = workdir / "checkpoints" / str(step)
    if damage := checksums.damage(at):
        earlier = max((one for one in saved_steps(workdir) if one < step), default=None)
        take = f"take that of step {earlier}" if earlier else "train again from the start"
        raise InputError(f"{at} is damaged ({damage}): {take}.")


def put_aside(workdir: Path, steps: Iterable[int]) -> None:
    """Checkpoints that shall not count are kept under another name, `STEP.damaged`."""
    for step in steps:
        at = workdir / "checkpoints" / str(step)
        aside = at.with_name(f"{step}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        at.rename(aside)


class Checkpoints:
    """The checkpoints of one workdir, oldest thrown away first.

    Args:
        keep: so many newest are kept,
        keep_every: and every one of a step that this divides,
        best: and the one with the largest value of this metric; the smallest of `-METRIC`; of
            equals the newest.
        apart: each process has a workdir of its own, and writes what it holds into that: all of
            their files together are a checkpoint.
        writes: whether this is the run itself; others only read.
        tell: who is told what could not be saved.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        best: str | None = None,
        apart: bool = False,
        writes: bool = True,
        tell: Callable[[str], None] = print,
    ):
        self._folder = (workdir / "checkpoints").absolute()
        self._best, self._tell = best, tell
        self._saving, self._lost = 0, False  # the step of the newest save; whether it failed
        kept: list[Any] = [preservation_policy.LatestN(keep)]
        if keep_every is not None:
            kept.append(preservation_policy.EveryNSteps(keep_every))
        if best is not None:
            kept.append(
                preservation_policy.BestN(
                    get_metric_fn=self._quality, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
            best_fn=None if best is None else self._quality,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._sum),
            cleanup_tmp_directories=writes,
            read_only=not writes,
        )
        if apart:  # nobody waits for anybody, nor takes another's word that a folder is there
            self._options.create = False
            self._options.async_options.create_directories_asynchronously = False
            self._options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=None,
                active_processes={jax.process_index()},
                barrier_sync_key_prefix=f"process-{jax.process_index()}",
            )
            if writes:
                self._folder.mkdir(parents=True, exist_ok=True)
        self._apart = apart
        self._manager = self._open()
        self._best_quality = self._kept_quality()

    def _open(self) -> ocp.CheckpointManager:
        handlers = _handlers(self._options.multiprocessing_options) if self._apart else None
        return ocp.CheckpointManager(self._folder, options=self._options, item_handlers=handlers)

    def _kept_quality(self) -> float:
        """Of the best checkpoint there is."""
        at = None if self._best is None else self._manager.best_step()
        return self._quality({} if at is None else self._manager.metrics(at) or {})

    def save(
        self,
        step: int,
        state: TrainState,
        data: dict[str, Any],
        clock: dict[str, float],
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Start saving; the files appear as a whole or not at all.

        Where they cannot be written, somebody is told, what there is stays, and training goes on.

        Args:
            metrics: what an evaluation at this very step found; its numbers are saved with it where
                there is a `best`.
        """
        self._best_quality = max(self._best_quality, self._quality(metrics or {}))
        found = {name: x for name, x in (metrics or {}).items() if isinstance(x, int | float)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            data=ocp.args.JsonSave(data),
            clock=ocp.args.JsonSave(clock),
        )
        with self._telling():
            self._manager.wait_until_finished()
        self._saving, self._lost = step, False
        with self._telling():
            self._manager.save(step, metrics=None if self._best is None else found, args=items)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Whatever makes a save fail is told, and what it left is removed."""
        try:
            yield
        except Exception as error:  # a full disk, a folder that is gone, ...
            self._lost = True
            _only_the_first_is_told()
            self._manager = self._open()  # which begins with a clean folder
            self._best_quality = self._kept_quality()
            newest = self._manager.latest_step()
            said = " ".join(str(error).split()) or type(error).__name__
            full = os.strerror(errno.ENOSPC)
            why = full if full in said else said[:200]
            self._tell(
                f"Step {self._saving} could not be saved ({why}); "
                + (f"the newest checkpoint is that of step {newest}." if newest else "none is.")
            )

    def _sum(self) -> None:
        """Every file of a checkpoint is written, and its folder not yet called by its step."""
        for folder in self._folder.iterdir():
            if folder.name.partition(".")[0] == str(self._saving):
                if self._apart:  # each has a clock of its own
                    checksums.write(folder, "state", jax.process_index())
                else:
                    checksums.write(folder)

    def is_best(self, metrics: Mapping[str, Any]) -> bool:
        """Whether an evaluation found better than any that a checkpoint was kept of, so that it
        has to be saved; also where it lacks the metric, before `check_best` stops the run.
        """
        if self._best is not None and self._best.removeprefix("-") not in metrics:
            return True
        return self._quality(metrics) > self._best_quality

    def best_step(self) -> int:
        """The step of the best checkpoint.

        Raises:
            InputError: nobody said what is best, or none was saved at an evaluation.
        """
        if self._best is None:
            raise InputError(
                "This run was told no config.checkpoint.best, so it kept its newest only; give the "
                "number of a step."
            )
        if self._best_quality == -math.inf:
            raise InputError(
                f"{self._manager.directory} has no checkpoint with '{self._best.lstrip('-')}' yet."
            )
        return int(self._manager.best_step() or 0)

    def check_best(self, metrics: Mapping[str, Any]) -> None:
        """That an evaluation found what `best` is judged by; what was saved until then is kept.

        Raises:
            InputError: it did not.
        """
        name = (self._best or "").removeprefix("-")
        if name and name not in metrics:
            self.close()
            near = nearest(name, [n for n in metrics if n.startswith("eval/")] or metrics)
            raise InputError(
                f"config.checkpoint.best: no evaluation writes '{name}'.{near} The state is saved; "
                "the same command with a right name goes on."
            )

    def _quality(self, metrics: Mapping[str, Any]) -> float:
        """What is largest for the best; −∞ where it was not measured or is no number."""
        name = (self._best or "").removeprefix("-")
        value = float(metrics.get(name, math.nan))
        return -math.inf if math.isnan(value) else -value if self._best != name else value

    def restore(self, like: TrainState, step: int) -> Restored:
        """The checkpoint of `step`, laid out like `like` (shapes, shardings), of which somebody
        knows that it is sound.

        Raises:
            InputError: it does not fit the model of this config.
        """
        try:
            saved = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like._asdict()),
                    data=ocp.args.JsonRestore(),
                    clock=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # the library raises nothing narrower
            _only_the_first_is_told()
            raise InputError(
                f"{self._folder / str(step)} does not fit the model of this config. (--debug shows "
                "the cause.)"
            ) from error
        return Restored(TrainState(**saved["state"]), saved["data"], saved["clock"])

    def close(self) -> None:
        """Until every save that was started is on disk.

        Raises:
            InputError: the last could not be written.
        """
        with self._telling():
            self._manager.wait_until_finished()
        self._manager.close()
        if self._lost:
            raise InputError(
                f"The state of step {self._saving} could not be saved in {self._folder}; make room "
                "there, and the same command goes on."
            )


def _handlers(processes: ocp.options.MultiprocessingOptions) -> dict[str, Any]:
    """A file for each part of an array, for files that processes share are nowhere joined."""
    json = ocp.JsonCheckpointHandler(multiprocessing_options=processes)
    state = ocp.StandardCheckpointHandler(multiprocessing_options=processes, use_ocdbt=False)
    return {"state": state, "data": json, "clock": json, "metrics": json}


def _only_the_first_is_told() -> None:
    """Of all parallel reads or writes that fail, only the first is told.

    The others end after it, in threads, with nobody left to hear them: they would litter stderr.
    """
    before = sys.unraisablehook

    def hook(failure: Any) -> None:
        noise = ("Event loop is closed", "while reading array index")
        if not any(words in str(failure.exc_value) for words in noise):
            before(failure)

    sys.unraisablehook = hook
