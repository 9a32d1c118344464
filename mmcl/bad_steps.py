"""bad_steps.jsonl: the steps of a run whose numbers were no good, and their records."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Source
from mmcl import json_lines
from mmcl.guard import GOOD, KINDS, SPIKE, Guard
from mmcl.processes import is_first


class Rewound(Exception):
    """The run goes back to its last checkpoint."""


class BadStep(InputError):
    """The run stops for a step.

    Attributes:
        step: the number of that step.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class BadSteps:
    """One JSON object a bad step: its `step`, `kind`, `loss`, what was `done` about it, and the
    `ids` of its records.

    A step is judged on the devices; here its number is asked for only when something is written or
    saved, so that the host need not wait for every step.

    Args:
        tell: who is told.
    """

    def __init__(self, workdir: Path, tell: Callable[[str], None]):
        self._path, self._tell = workdir / "bad_steps.jsonl", tell
        self._rows = {row["step"]: row for row in json_lines.read(self._path)}  # of process 0
        self._done = _told_by_the_first({at: row["done"] for at, row in self._rows.items()})
        self._waiting: list[tuple[int, Mapping[str, jax.Array], jax.Array]] = []

    def left_out(self, step: int) -> bool:
        """Whether a step is to be gone over, because the run was rewound for it."""
        return self._done.get(step) == "rewind"

    def stepped(self, step: int, metrics: Mapping[str, jax.Array], index_B: jax.Array) -> None:
        """A step was made: of records of these numbers."""
        self._waiting.append((step, {x: metrics[x] for x in ("bad", "loss")}, index_B))

    def check(self, step: int, guard: Guard, source: Source) -> int:
        """Wait for the steps up to this one; how many of them were bad. All processes must ask.

        Args:
            source: of the records of these steps.

        Raises:
            Rewound: the run has to go back.
            BadStep: it has to stop.
        """
        waiting, self._waiting = self._waiting, []
        told = jax.device_get([metrics for _, metrics, _ in waiting])
        for (at, _, index_B), found in zip(waiting, told, strict=True):
            if found["bad"] != GOOD:
                ids = self._ids(index_B, source)
                self._note(at, found, ids, guard)
        return sum(at <= step for at in self._done)

    def _note(self, step: int, found: Mapping[str, Any], ids: Sequence[Any], guard: Guard) -> None:
        bad, loss = int(found["bad"]), float(found["loss"])
        action, kind = guard.action(bad), KINDS[bad]
        count = len(self._done.keys() | {step})
        stops = action == "stop" or count > guard.limit
        self._done[step] = "stop" if stops else str(action)
        self._rows[step] = {
            "step": step,
            "kind": kind,
            "loss": loss if np.isfinite(loss) else str(loss),
            "done": self._done[step],
            "ids": ids,
        }
        if is_first():
            json_lines.replace(self._path, self._rows.values())
        what = "a spike" if bad == SPIKE else "or a gradient is not finite"
        line = f"The loss of step {step}, {loss:.4g}, {'is ' if bad == SPIKE else ''}{what}"
        if stops:
            limit = "" if action == "stop" else f", the last of config.guard.limit={count - 1}"
            raise BadStep(
                f"{line}{limit}; {self._path} names its records, and the last checkpoint is from "
                f"before. With config.guard.{kind}=skip or =rewind the same command goes on.",
                step,
            )
        if action == "rewind":
            self._tell(f"{line}: going back to the last checkpoint, to go on without that step.")
            raise Rewound
        self._tell(f"{line}: it is left out.")

    def _ids(self, index_B: Any, source: Source) -> list[Any]:
        """Of the records that all processes had; only one process needs them."""
        if jax.process_count() > 1:
            index_B = multihost_utils.process_allgather(index_B, tiled=True)
        return [source[int(i)].get("id") for i in np.asarray(index_B)] if is_first() else []


def _told_by_the_first(done: Mapping[int, str]) -> dict[int, str]:
    """What process 0 knows; all of them must ask, for their folders may be different ones."""
    if jax.process_count() == 1:
        return dict(done)
    words = json.dumps(list(done.items())).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(words))))
    mine = np.frombuffer(words.ljust(size)[:size], np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()
    return {int(step): str(action) for step, action in json.loads(told)}
