"""Checkpoints: training state, data state and clock, saved together and asynchronously."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from data_pipelines.errors import InputError
from mmcl.state import TrainState

logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every step of a save


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
            saved = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like._asdict()),
                    data=ocp.args.JsonRestore(),
                    clock=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise InputError(f"Checkpoint {step} cannot be restored: {first}") from error
        return Restored(TrainState(**saved["state"]), saved["data"], saved["clock"])

    def close(self) -> None:
        """Until every save that was started is on disk."""
        self._manager.close()
