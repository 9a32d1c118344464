"""Checkpoints: training state, data state and clock, saved together and asynchronously."""

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.state import TrainState

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every step of a save
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and every read of a damaged file


class Restored(NamedTuple):
    state: TrainState
    data: dict[str, Any]  # where the data order stands: {"step": ..., "seed": ...}
    clock: dict[str, float]  # {"seconds": ..., "examples": ...}


class Checkpoints:
    """The checkpoints of one workdir, oldest thrown away first.

    Args:
        keep: so many newest are kept,
        keep_every: and every one of a step that this divides,
        best: and the one with the largest value of this metric; the smallest of `-METRIC`; of
            equals the newest.
        apart: each process has a workdir of its own, and writes what it holds into that: all of
            their files together are a checkpoint.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        best: str | None = None,
        apart: bool = False,
    ):
        self._best = best
        kept: list[Any] = [preservation_policy.LatestN(keep)]
        if keep_every is not None:
            kept.append(preservation_policy.EveryNSteps(keep_every))
        if best is not None:
            kept.append(
                preservation_policy.BestN(
                    get_metric_fn=self._quality, n=1, keep_checkpoints_without_metrics=False
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
            best_fn=None if best is None else self._quality,
            enable_async_checkpointing=True,
        )
        handlers = None
        if apart:
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(primary_host=None)
            handlers = _handlers(options.multiprocessing_options)
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(), options=options, item_handlers=handlers
        )
        at = None if best is None else self._manager.best_step()
        known = None if at is None else self._manager.metrics(at)
        self._best_quality = self._quality(known or {})

    def save(
        self,
        step: int,
        state: TrainState,
        data: dict[str, Any],
        clock: dict[str, float],
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Start saving; the files appear as a whole or not at all.

        Args:
            metrics: what an evaluation at this very step found; its numbers are saved with it where
                there is a `best`.
        """
        self._best_quality = max(self._best_quality, self._quality(metrics or {}))
        found = {name: x for name, x in (metrics or {}).items() if isinstance(x, int | float)}
        self._manager.save(
            step,
            metrics=None if self._best is None else found,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()),
                data=ocp.args.JsonSave(data),
                clock=ocp.args.JsonSave(clock),
            ),
        )

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
        """The checkpoint of `step`, laid out like `like` (shapes, shardings).

        Raises:
            InputError: it cannot be read, or does not fit the model of this config.
        """
        try:
            with _one_failure():
                saved = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(like._asdict()),
                        data=ocp.args.JsonRestore(),
                        clock=ocp.args.JsonRestore(),
                    ),
                )
        except Exception as error:  # the library raises nothing narrower
            earlier = max((at for at in self._manager.all_steps() if at < step), default=None)
            then = f"checkpoint {earlier} is used" if earlier else "train again from the start"
            raise InputError(
                f"{self._manager.directory / str(step)} is damaged, or of another model: delete "
                f"it and {then}. (--debug shows the cause.)"
            ) from error
        return Restored(TrainState(**saved["state"]), saved["data"], saved["clock"])

    def close(self) -> None:
        """Until every save that was started is on disk."""
        self._manager.close()


def _handlers(processes: ocp.options.MultiprocessingOptions) -> dict[str, Any]:
    """A file for each part of an array, for files that processes share are nowhere joined."""
    json = ocp.JsonCheckpointHandler(multiprocessing_options=processes)
    state = ocp.StandardCheckpointHandler(multiprocessing_options=processes, use_ocdbt=False)
    return {"state": state, "data": json, "clock": json, "metrics": json}


@contextlib.contextmanager
def _one_failure() -> Iterator[None]:
    """Of all parallel reads that a damaged file fails, only the first is told.

    The others end after it, in threads, with nobody left to hear them: they would litter stderr.
    """
    before = sys.unraisablehook

    def hook(failure: Any) -> None:
        noise = ("Event loop is closed", "while reading array index")
        if not any(words in str(failure.exc_value) for words in noise):
            before(failure)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before  # not after a failure: the others may come late
