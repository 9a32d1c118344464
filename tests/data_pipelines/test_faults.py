"""Which exceptions speak of one record, and which of the program."""

import io
import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.faults import (
    Fault,
    blamed_on_record,
    bombs_are_errors,
    by_kind,
    fault_of,
    size,
    too_many,
)


def picture(format: str, side: int = 64) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


RAISED: list[tuple[Any, str]] = [  # what somebody does with a record, its kind
    (lambda: opened(picture("JPEG")[:1500]), "truncated"),
    (lambda: opened(picture("PNG")[:1500]), "truncated"),
    (lambda: opened(b"GIF89a"), "truncated|undecodable"),
    (lambda: opened(b"no picture at all"), "undecodable"),
    (lambda: opened(picture("PNG").replace(b"IDAT", b"ID\xff\xff", 1)), "undecodable"),
    (lambda: Path("/nowhere/at/all").read_bytes(), "missing_file"),
    (lambda: Path("/").read_bytes(), "unreadable"),
    (lambda: {"text": "a"}["image"], "missing_field"),
    (lambda: b"\xff\xfe".decode(), "undecodable"),
    (lambda: json.loads("{"), "undecodable"),
    (lambda: struct.unpack("<I", b"abc"), "truncated"),
    (lambda: zlib.decompress(b"abc"), "truncated"),
    (lambda: pickle.loads(b""), "truncated"),
    (lambda: np.zeros((2, 3)) + np.zeros((4,)), "undecodable"),
]


@pytest.mark.parametrize("use, kind", RAISED)
def test_a_record_is_to_blame(use: Any, kind: str) -> None:
    with pytest.raises(Fault) as raised, blamed_on_record():
        use()
    assert raised.value.kind in kind.split("|")
    assert raised.value.reason and "\n" not in raised.value.reason
    assert isinstance(raised.value.__cause__, Exception)


PROGRAM: list[Any] = [
    lambda: None + 1,  # type: ignore[operator]
    lambda: object().nothing,  # type: ignore[attr-defined]
    lambda: [][0],
    lambda: 1 // 0,
    lambda: compile("a b", "own.py", "exec"),
    lambda: __import__("no_such_module"),
]


@pytest.mark.parametrize("use", PROGRAM)
def test_the_program_is_to_blame(use: Any) -> None:
    with pytest.raises(Exception) as raised, blamed_on_record():
        use()
    assert not isinstance(raised.value, Fault)
    assert fault_of(raised.value) is None


@pytest.mark.parametrize(
    "error", [NotImplementedError(), RecursionError(), MemoryError(), InputError("no.")]
)
def test_so_it_is_for_what_no_record_can_help(error: Any) -> None:
    with pytest.raises(type(error)), blamed_on_record():
        raise error


def test_a_fault_stays_what_it_is_and_can_be_pickled() -> None:
    fault = Fault("odd", "it is odd")
    with pytest.raises(Fault) as raised, blamed_on_record():
        raise fault
    assert raised.value is fault
    copied = pickle.loads(pickle.dumps(fault))
    assert (copied.kind, copied.reason, str(copied)) == ("odd", "it is odd", "odd: it is odd")


def test_a_decompression_bomb_is_refused_where_pillow_only_warns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    bombs_are_errors()
    for side in (40, 64):  # up to twice as many pixels Pillow warns; beyond it raises
        with pytest.raises(Fault) as raised, blamed_on_record():
            opened(picture("PNG", side))
        assert raised.value.kind == "decompression_bomb"
    assert opened(picture("PNG", 31)).shape == (31, 31, 3)


def test_a_share_is_of_500_examples_at_least() -> None:
    assert not too_many(1, 10, 0.01) and not too_many(5, 10, 0.01)
    assert too_many(6, 10, 0.01)
    assert not too_many(10, 1000, 0.01) and too_many(11, 1000, 0.01)
    assert too_many(1, 10**6, 0.0) and not too_many(0, 1, 0.0)
    assert not too_many(10**6, 10**6, 1.0)


def test_sizes_and_kinds() -> None:
    value = {"a": b"123", "b": ["ab", "c"], "c": np.zeros((2, 2), np.float32), "d": None, "e": 7}
    assert size(value) == 3 + 3 + 16
    assert by_kind({"b_b": 1, "c": 3, "a": 1}) == "3 c, 1 a, 1 b b"
