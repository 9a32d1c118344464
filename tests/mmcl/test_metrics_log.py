"""metrics.jsonl and TensorBoard events: what was written is what is read, each step once."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mmcl.metrics_log import MetricsLog, read


def log(folder: Path, step: int, *rows: dict[str, Any]) -> None:
    written = MetricsLog(folder, step)
    for row in rows:
        written.write(row)
    written.close()


def strict(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, bit by bit, masked as record files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder: Path) -> list[Event]:
    """All events of all files in order: length, its checksum, data, its checksum."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            length, check = struct.unpack_from("<QI", data)
            body = data[12 : 12 + length]
            assert check == crc32c(data[:8])
            assert struct.unpack_from("<I", data, 12 + length) == (crc32c(body),)
            found.append(Event.FromString(body))
            data = data[16 + length :]
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) as TensorBoard keeps them: a start at a step purges from there on."""
    kept: list[tuple[int, str, float]] = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            kept = [scalar for scalar in kept if scalar[0] < event.step]
        kept += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return kept


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "time": 0.5, "train/loss": 2.0, "hardware/device": "CPU", "note": "é ☃\n"},
        {"step": 2, "eval/a/text_to_image/recall@10": 0.25, "list": [1, 2], "nothing": None},
        {"step": 3, "final": True},
    ]
    assert read(tmp_path) == []
    log(tmp_path, 0, *rows)
    assert read(tmp_path) == strict(tmp_path) == rows


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    written = MetricsLog(tmp_path, 0)
    for step in (1, 2):
        written.write({"step": step})
        assert [row["step"] for row in read(tmp_path)] == list(range(1, step + 1))
    written.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.floats(), width=st.sampled_from([64, 32, 16]))
def test_any_number_stays_itself_in_valid_json(tmp_path: Path, value: float, width: int) -> None:
    kind = {64: float, 32: np.float32, 16: np.float16}[width]
    with np.errstate(over="ignore"):
        number = kind(value)
    log(tmp_path, 0, {"step": 1, "train/loss": number})
    strict(tmp_path)
    np.testing.assert_equal(read(tmp_path)[0]["train/loss"], float(number))


def test_numbers_without_a_word_in_json_are_strings(tmp_path: Path) -> None:
    log(tmp_path, 0, {"step": 1, "a": math.nan, "b": math.inf, "c": -math.inf, "d": "nan"})
    assert strict(tmp_path) == [
        {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "nan"}
    ]
    (row,) = read(tmp_path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf
    assert row["d"] == "nan"
    log(tmp_path, 1)  # cut back, and written anew
    assert strict(tmp_path)[0]["c"] == "-Infinity"


@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5), jnp.float32(0.5)])
def test_numbers_of_other_libraries_are_numbers(tmp_path: Path, number: Any) -> None:
    log(tmp_path, 0, {"step": np.int64(1), "train/loss": number})
    assert strict(tmp_path) == [{"step": 1, "train/loss": 0.5}]
    assert scalars(tmp_path) == [(1, "train/loss", 0.5)]


@pytest.mark.parametrize("restored", [0, 2, 3, 5, 9])
def test_a_log_ahead_of_its_checkpoint_is_cut_back(tmp_path: Path, restored: int) -> None:
    log(tmp_path, 0, *({"step": step, "train/loss": 1.0} for step in range(1, 6)))
    (events_file,) = (tmp_path / "tensorboard").iterdir()
    if restored == 0:  # names have the second and the step in them
        events_file.rename(events_file.with_name("events.out.tfevents.1000000000.0"))
    log(tmp_path, restored, {"step": restored + 1, "train/loss": 2.0})
    kept = min(restored, 5)
    want = [(step, 1.0) for step in range(1, kept + 1)] + [(restored + 1, 2.0)]
    assert [(row["step"], row["train/loss"]) for row in read(tmp_path)] == want
    assert scalars(tmp_path) == [(step, "train/loss", loss) for step, loss in want]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["metrics.jsonl"]


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(1, 40), tail=st.sampled_from([b"", b"\0\0\0"]))
def test_a_line_cut_short_is_left_out(tmp_path: Path, cut: int, tail: bytes) -> None:
    rows = [{"step": 1, "train/loss": 1.5}, {"step": 2, "train/loss": 1.25, "time": 12.5}]
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    log(tmp_path, 0, *rows)
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: -1 - cut] + tail)
    assert read(tmp_path) == rows[:1]
    log(tmp_path, 2, {"step": 3})
    assert strict(tmp_path) == [rows[0], {"step": 3}]


def test_a_whole_line_without_its_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}')
    log(tmp_path, 1, {"step": 2})
    assert strict(tmp_path) == [{"step": 1}, {"step": 2}]


def test_events_hold_the_numbers_of_the_rows(tmp_path: Path) -> None:
    log(
        tmp_path,
        0,
        {"step": 7, "time": 1.5, "train/loss": 0.1, "hardware/device": "CPU", "final": True},
        {"step": 8, "train/loss": math.nan, "eval/a/recall@10": 1},
    )
    found = scalars(tmp_path)
    assert [scalar[:2] for scalar in found] == [
        (7, "time"),
        (7, "train/loss"),
        (8, "train/loss"),
        (8, "eval/a/recall_10"),  # @ is none of TensorBoard's letters
    ]
    np.testing.assert_array_equal(
        [scalar[2] for scalar in found], np.float32([1.5, 0.1, np.nan, 1])
    )


def test_nobody_is_told_of_a_number_that_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log(tmp_path, 0, {"step": 1, "train/loss": math.nan})
    assert caplog.text == ""
