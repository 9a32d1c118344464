"""rejected.jsonl: the records of a run that could not be used, and why."""

import collections
import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_pipelines.errors import InputError
from data_pipelines.faults import Reject, by_kind, too_many
from mmcl import json_lines
from mmcl.appended import Appended

_ROOM = 4096  # bytes for the counts of one process


class RejectedLog:
    """One JSON object a rejected record, and how many there were of each kind.

    A record of training has `id` (null where it could not be read), `source`, `kind`, `reason`, its
    `epoch` and `index`, its `position` in the order of the stage and the `step` that went without
    it; one of an evaluated split has `split` in the place of a position, and is written once.

    Every process writes a file of its own, `rejected.jsonl` or `rejected-<process>.jsonl`. After a
    kill they may be ahead of the restored checkpoint: they are cut back to `step`.

    Args:
        counts: of all processes up to `step`, by kind, as the checkpoint has them.
        source: the name of a source that is no mixture.
    """

    def __init__(self, workdir: Path, step: int, counts: Mapping[str, int], source: str):
        process = jax.process_index()
        self.path = workdir / ("rejected.jsonl" if process == 0 else f"rejected-{process}.jsonl")
        self._source, self._process = source, process
        self._counts = collections.Counter(counts if process == 0 else {})
        files = {self.path}
        if process == 0:  # nobody else cuts the files of processes that are no more
            others = {workdir / f"rejected-{i}.jsonl" for i in range(1, jax.process_count())}
            found = map(Path, glob.glob(f"{glob.escape(str(workdir))}/rejected-*.jsonl"))
            files |= set(found) - others
        for file in files:
            _cut(file, step)
        self._file: Appended | None = None  # only where there is something to tell
        self._seen = {
            (row["split"], row["index"]) for row in json_lines.read(self.path) if "split" in row
        }

    def add(self, step: int, rejected: Iterable[Reject]) -> None:
        """Records that the batch of a step went without."""
        for one in rejected:
            self._counts[one.kind] += 1
            self._write(one, {"epoch": one.epoch, "position": one.position, "step": step})

    def add_evaluated(self, step: int, split: str, rejected: Iterable[Reject]) -> None:
        """Records that an evaluation left out; every process sees them all, and one writes."""
        for one in rejected:
            if self._process == 0 and (split, one.index) not in self._seen:
                self._seen.add((split, one.index))
                self._write(one, {"epoch": 0, "split": split, "step": step})

    def counts(self) -> dict[str, int]:
        """How many records of training all processes rejected, by kind; all of them must ask."""
        if jax.process_count() == 1:
            return dict(self._counts)
        mine = json.dumps(self._counts).encode().ljust(_ROOM)
        gathered = multihost_utils.process_allgather(np.frombuffer(mine, np.uint8))
        total: collections.Counter[str] = collections.Counter()
        for row in np.asarray(gathered):
            total.update(json.loads(row.tobytes()))
        return dict(total)

    def check(self, examples: int, share: float) -> dict[str, int]:
        """The counts, as long as they are not too many.

        Raises:
            InputError: more than `share` of the examples of the run were rejected.
        """
        counts = self.counts()
        if too_many(sum(counts.values()), examples, share):
            raise InputError(
                f"{sum(counts.values())} of {examples:,} records could not be used "
                f"({by_kind(counts)}), more than config.faults.share={share} allows; {self.path} "
                "lists them. A larger share lets the same command go on."
            )
        return counts

    def _write(self, one: Reject, where: dict[str, Any]) -> None:
        row = {
            "id": one.id,
            "source": one.source or self._source,
            "kind": one.kind,
            "reason": one.reason,
            "index": one.index,
            **where,
        }
        if self._file is None:
            self._file = Appended(self.path)
        self._file.write(json_lines.line(row))


def _cut(path: Path, step: int) -> None:
    if path.is_file():
        json_lines.replace(path, (row for row in json_lines.read(path) if row["step"] <= step))
