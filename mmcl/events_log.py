"""TensorBoard's events of a run."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class EventsLog:
    """Numbers by step, in a new file each time that a run is started.

    They are written at once and here, for tensorboardX's thread would die of a full disk and let
    the training hang. What a disk does not take is left out: metrics.jsonl has it.

    Args:
        step: what was logged after it is forgotten by TensorBoard.
    """

    def __init__(self, folder: Path, step: int):
        self._folder, self._step = folder, step
        self._writer: EventsWriter | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._add(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        tags = (re.sub(r"[^-/\w.]", "_", name) for name in numbers)  # in TensorBoard's letters
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in zip(tags, numbers.values())]
        self._add(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, event: Event) -> None:
        try:
            if self._writer is None:
                self._writer = EventsWriter(str(self._folder / "events"), f".{self._step}")
            self._writer.write_event(event)
            self._writer.flush()
        except OSError:
            self._writer = None  # what is half written ends a file for its readers
            for file in self._folder.glob(f"*.{self._step}"):
                if not file.stat().st_size:
                    file.unlink()
            self._step += 1  # so that the next one has another name
