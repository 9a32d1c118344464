"""What stands for a value that a model receives: pictures and words."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np

MOST = 8  # pictures of one value
WIDEST = 256  # of a heat map, in pixels; longer signals are averaged


class Shown(NamedTuple):
    pictures: list[np.ndarray]  # uint8 (H, W, 3)
    words: str


def shown(value: Any) -> Shown:
    """A modality of an example: every picture in it, signals as heat maps, the rest in words."""
    if not isinstance(value, Mapping):
        value = {"value": value}
    raw, mask = value.get("raw"), value.get("mask")
    pictures: list[np.ndarray] = []
    words: list[str] = [raw] if isinstance(raw, str) else []
    if mask is not None:
        words.append(f"{int(np.sum(mask))} of {np.size(mask)} places")
    for name, array in _arrays(value):
        if array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] in (1, 3, 4):
            views = array.reshape(-1, *array.shape[-3:])
            pictures += [_rgb(view) for view in views[:MOST]]
            if len(views) > MOST:
                words.append(f"{len(views)} pictures")
        elif array.dtype.kind == "f" and array.ndim == 2 and min(array.shape) > 1:
            pictures.append(heat_map(array))
        elif not isinstance(raw, str):
            words.append(f"{name}: {_described(array)}")
    return Shown(pictures, " · ".join(words))


def heat_map(signal_TxC: np.ndarray) -> np.ndarray:
    """A signal with time from left to right and its first channel at the bottom; each of the
    channels of a few is drawn as a band.
    """
    step = -(-len(signal_TxC) // WIDEST)
    padded = np.pad(signal_TxC, ((0, -len(signal_TxC) % step), (0, 0)), mode="edge")
    short = padded.reshape(-1, step, signal_TxC.shape[1]).mean(axis=1)
    low, high = float(short.min()), float(short.max())
    scaled = (short - low) / (high - low or 1.0)
    band = max(1, 48 // short.shape[1])
    coloured = matplotlib.colormaps["viridis"](scaled.T[::-1], bytes=True)[..., :3]
    return np.ascontiguousarray(np.repeat(coloured, band, axis=0))


def _arrays(value: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, part in value.items():
        if key in ("raw", "mask"):
            continue
        if isinstance(part, Mapping):
            yield from _arrays(part, f"{name}{key}.")
        elif not isinstance(part, str):
            yield f"{name}{key}", np.asarray(part)


def _rgb(view: np.ndarray) -> np.ndarray:
    """RGB of one, three or four channels; what is transparent is white."""
    if view.shape[-1] == 4:
        alpha = view[..., 3:].astype(np.float32) / 255
        return np.rint(view[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.broadcast_to(view, (*view.shape[:-1], 3))


def _described(array: np.ndarray) -> str:
    if not array.ndim:
        return f"{array:.4g}" if array.dtype.kind == "f" else str(array)
    shape = " × ".join(map(str, array.shape))
    if array.dtype.kind not in "fiu" or not array.size:
        return f"{array.dtype} {shape}"
    return f"{array.dtype} {shape}, {array.min():.3g} … {array.max():.3g}"
