"""Checkpoints: training state, data state and clock, saved together and asynchronously."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from data_pipelines.errors import InputError
from mmcl.state import TrainState

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every step of a save
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and every read of a damaged file


class Restored(NamedTuple):
    state: TrainState
    data: dict[str, Any]  # where the data order stands: {"step": ..., "seed": ...}
    clock: dict[str, float]  # {"seconds": ..., "examples": ...}


class Checkpoints:
    """The checkpoints of one workdir, oldest thrown away first."""

    def __init__(self, workdir: Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    def save(
        self, step: int, state: TrainState, data: dict[str, Any], clock: dict[str, float]
    ) -> None:
        """Start saving; the files appear as a whole or not at all."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()),
                data=ocp.args.JsonSave(data),
                clock=ocp.args.JsonSave(clock),
            ),
        )

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
