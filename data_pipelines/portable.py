"""Records as every format can hold them, and what tells whether one came through whole."""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from PIL import Image

from data_pipelines.errors import InputError

_MAGIC = {  # how files of these kinds begin
    "jpg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG",),
    "gif": (b"GIF8",),
    "ogg": (b"OggS",),
    "flac": (b"fLaC",),
    "mp3": (b"ID3", b"\xff\xfb"),
    "webm": (b"\x1aE\xdf\xa3",),
}


def portable(value: Any) -> Any:
    """A record, or a part of one, as strings, bytes, numbers, None, lists and mappings.

    Pixels, uint8 (H, W, 3 or 4), become a PNG, which loses nothing; other arrays nested lists.

    Raises:
        InputError: there is something else in it.
    """
    if isinstance(value, Mapping):
        return {str(key): portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [portable(inner) for inner in value]
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (3, 4):
            return _png(value)
        return portable(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return value
    raise InputError(f"No format can hold a {type(value).__name__}.")


def digest(record: Mapping[str, Any]) -> bytes:
    """SHA-256 of a portable record: the same whatever format it was in.

    What is None or an empty string is as if it were not there, a whole number is the same as a
    float of that value, and keys have no order: no format tells all of these apart.
    """
    return hashlib.sha256(msgpack.packb(_canonical(record))).digest()


def ending(data: bytes) -> str:
    """How the name of a file with this in it should end: jpg, png, ogg, ...; bin for what is not
    known.
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(data[8:12], "bin")
    if data[4:8] == b"ftyp":
        return "mp4"
    return next((end for end, starts in _MAGIC.items() if data.startswith(starts)), "bin")


def holds_bytes(value: Any) -> bool:
    """Whether there are bytes anywhere in it."""
    if isinstance(value, Mapping):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(holds_bytes, value))
    return isinstance(value, bytes)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        some = {key: _canonical(value[key]) for key in sorted(value)}
        return {key: inner for key, inner in some.items() if inner is not None and inner != ""}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
