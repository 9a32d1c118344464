"""rejected.jsonl: each record once, counted, cut back with the run."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from data_pipelines.errors import InputError
from data_pipelines.faults import Reject
from mmcl.rejected_log import RejectedLog


def reject(position: int, kind: str = "odd", **more: Any) -> Reject:
    return Reject(f"r{position}", 10 + position, 2, position, kind, "why: \u00fc", **more)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_line_each(tmp_path: Path) -> None:
    log = RejectedLog(tmp_path, 0, {}, "emoji")
    assert log.counts() == {} and not log.path.exists()
    log.add(1, [reject(3), reject(4, "even", source="b")])
    log.add(2, [reject(7)])
    assert log.counts() == {"odd": 2, "even": 1}
    first, second, third = lines(tmp_path / "rejected.jsonl")
    assert first == {
        "id": "r3", "source": "emoji", "kind": "odd", "reason": "why: \u00fc", "index": 13,
        "epoch": 2, "position": 3, "step": 1,
    }  # fmt: skip
    assert (second["source"], second["kind"]) == ("b", "even")
    assert (third["position"], third["step"]) == (7, 2)


def test_it_is_cut_back_to_the_restored_step(tmp_path: Path) -> None:
    log = RejectedLog(tmp_path, 0, {}, "emoji")
    for step in (1, 2, 3, 4):
        log.add(step, [reject(step)])
    log.add_evaluated(2, "val", [reject(0)])
    with log.path.open("a") as file:
        file.write('{"id": "cut sho')  # by a kill
    resumed = RejectedLog(tmp_path, 2, {"odd": 2}, "emoji")
    resumed.add(3, [reject(3)])
    assert resumed.counts() == {"odd": 3}
    assert [row["step"] for row in lines(log.path)] == [1, 2, 2, 3]


def test_a_split_is_listed_once(tmp_path: Path) -> None:
    for step in (0, 5):  # also after a resume
        log = RejectedLog(tmp_path, step, {}, "emoji")
        log.add_evaluated(step + 1, "val", [reject(0), reject(1)])
        log.add_evaluated(step + 2, "val", [reject(0)])
    log.add_evaluated(9, "test", [reject(0)])
    found = [(row["split"], row["index"], row["step"]) for row in lines(log.path)]
    assert found == [("val", 10, 1), ("val", 11, 1), ("test", 10, 9)]
    assert log.counts() == {}  # of training


def test_too_many(tmp_path: Path) -> None:
    log = RejectedLog(tmp_path, 0, {"truncated": 4}, "emoji")
    log.add(1, [reject(1)])
    assert log.check(10, 0.01) == {"truncated": 4, "odd": 1}
    log.add(1, [reject(2)])
    with pytest.raises(InputError, match=r"^6 of 10 records could not .* \(4 truncated, 2 odd\), "):
        log.check(10, 0.01)
    assert log.check(600, 0.01)


def test_every_process_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes become two; what all rejected was counted by the first."""
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        log = RejectedLog(tmp_path, 0, {"odd": 5}, "emoji")
        log.add(1, [reject(process)])
        log.add(2, [reject(process)])
        assert log._counts == {"odd": 7 if process == 0 else 2}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    files = ["rejected.jsonl", "rejected-1.jsonl", "rejected-2.jsonl"]
    for process, steps in [(0, [[1], [1, 2], [1]]), (1, [[1], [1], [1]])]:
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        RejectedLog(tmp_path, 1, {}, "emoji")
        assert [[row["step"] for row in lines(tmp_path / name)] for name in files] == steps


def test_counts_are_added_up_over_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        logs.append(RejectedLog(tmp_path, 0, {"odd": 5}, "emoji"))
        logs[-1].add(1, [reject(process), reject(9, "näh" * process or "even")])
    sent: list[np.ndarray] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda x: sent.append(x) or sent * 1)
    logs[0].counts()
    assert logs[1].counts() == {"odd": 7, "even": 1, "näh": 1}
