"""The clock and the pace of a run."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl import progress as module
from mmcl.progress import Progress


class Told:
    """In the place of a log, a live line and a watch over stalls."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def write(self, row: dict[str, Any]) -> None:
        self.written.append(row)

    def row(self, row: dict[str, Any]) -> None:
        self.shown.append(row)

    def seconds(self) -> float:
        return 1.0


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def progress(told: Told, monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Of a run that was 10 seconds at work before; a second passes whenever the time is asked."""
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    before = {"seconds": 10.0, "examples": 640}
    made = Progress(told, told, told, told.lines.append, before)  # type: ignore[arg-type]
    made.begin(10, 64)
    return made


def test_laps_add_up_to_the_clock(progress: Progress, told: Told) -> None:
    metrics = {"loss": jnp.float32(2), "bad": jnp.bool_(False)}
    row = progress.row(12, metrics)  # a second after the beginning
    assert row == {"train/loss": 2.0, "train/examples_per_s": 128.0, "train/data_wait": 1.0}
    progress.record(12, row, final=False)
    assert told.written == told.shown == [{"step": 12, "time": 12.0, **row}]
    assert progress.clock(13) == {"seconds": 13.0, "examples": 640 + 3 * 64}
    progress.begin(13, 8)  # another stage
    progress.record(14, {}, final=True)
    assert told.written[1] == {"step": 14, "time": 13.0, "final": True}
    assert progress.clock(14)["examples"] == 640 + 2 * 64 + 8


def test_a_straggler_is_told_of_once(
    progress: Progress, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in (2, 2, 1, 2):
        waits = np.where(np.arange(3) == slow, 0.5, 0.0)
        monkeypatch.setattr(module, "gathered", lambda *_, w=waits: np.stack([w, w + 1], 1))
        assert progress.row(12, {"loss": jnp.float32(2)})["train/data_wait"] == 0.5
    assert [line.split()[1] for line in told.lines] == ["2", "1"]
