"""Lines that a full disk does not take are there as soon as it has room."""

from pathlib import Path
from typing import Any

import pytest

from mmcl.appended import Appended
from mmcl.events_log import EventsLog


class Disk:
    """A raw file on a disk of so many bytes."""

    def __init__(self, room: int):
        self.content, self.room = b"", room

    def write(self, data: bytes) -> int:
        taken = data[: max(0, self.room - len(self.content))]
        if data and not taken:
            raise OSError(28, "No space left on device")
        self.content += taken
        return len(taken)

    def close(self) -> None: ...


def test_nothing_is_lost_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk(room=8)
    monkeypatch.setattr(Path, "open", lambda *_, **__: disk)
    file = Appended(Path("metrics.jsonl"))
    for line in ("one\n", "two\n", "three\n", "four\n"):
        file.write(line)
    assert disk.content == b"one\ntwo\n"
    told = "mmcl: metrics.jsonl cannot be written (No space left on device); it is tried again.\n"
    assert capsys.readouterr().err == told
    disk.room = 10  # a part of a line
    file.write("")
    assert disk.content == b"one\ntwo\nth" and capsys.readouterr().err == ""
    disk.room = 99
    file.write("five\n")
    assert disk.content == b"one\ntwo\nthree\nfour\nfive\n"
    disk.room = 0
    file.write("six\n")
    disk.room = 99
    file.close()
    assert disk.content.endswith(b"five\nsix\n") and capsys.readouterr().err == told


def test_events_go_on_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboardX.event_file_writer import EventsWriter

    log = EventsLog(tmp_path, 7)
    log.write(8, {"train/loss": 1.0})
    write = EventsWriter.write_event

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", fail)
    for step in (9, 10):
        log.write(step, {"train/loss": 1.0})
    monkeypatch.setattr(EventsWriter, "write_event", write)
    log.write(11, {"train/loss": 1.0})
    log.close()
    assert [file.suffix for file in sorted(tmp_path.iterdir())] == [".7", ".9"]
