"""Film transforms: from a file's bytes to a few frames of static shape.

Every transform is a function `f(value, *, rng, train, **options) -> value`.
"""

from typing import Any, Literal

import numpy as np
from PIL import Image

from data_pipelines import drawn, films
from data_pipelines.errors import InputError

Sampling = Literal["uniform", "stride", "segments"]


def decode(
    value: bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    frames: int,
    size: int,
    sampling: Sampling = "uniform",
    stride: int = 1,
    scale: tuple[float, float] = (0.7, 1.0),
    flip: float = 0.0,
    array_rate: float = 1.0,
) -> dict[str, Any]:
    """So many frames of a film, each the same square of it.

    In evaluation the square is the largest in the middle; in training a random one of it.

    Args:
        value: an mp4, webm or whatever else FFmpeg reads (upright, as its rotation says), an
            animated webp, gif or png (on white), or uint8 (T, H, W, 3).
        frames: how many to give.
        size: their side in pixels; antialiased.
        sampling: see `places`.
        stride: frames from one to the next, for `sampling="stride"`.
        scale: the least and the most of the shorter side that the square takes in training.
        flip: how probable it is that left and right change places in training.
        array_rate: frames a second of an array, which cannot tell; a file does.

    Returns:
        `value` (frames, size, size, 3) uint8; `mask` (frames,) bool, False where the film had too
        few frames and its last is repeated; `time` (frames,) float32, in seconds since the film's
        first; in evaluation `raw`, four of them as one picture.

    Raises:
        Fault: `bad_video`, `empty_video` or `large_video`.
        InputError: `video` is not installed, or an option is out of range.
    """
    if min(frames, size, stride) < 1 or not 0 < scale[0] <= scale[1] <= 1:
        raise InputError(
            f"video.decode: frames={frames}, size={size}, stride={stride} should be 1 or more, and "
            f"scale={scale} within 0 and 1, the least first."
        )

    def choose(n: int) -> list[int]:
        return places(n, frames, sampling, stride, rng, train).tolist()

    found = films.frames(value, choose, array_rate)
    width, height = found[0][0].size
    side = min(width, height) * (rng.uniform(*scale) if train else 1.0)
    left, top = (width - side) / 2, (height - side) / 2
    if train:
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    box = (left, top, min(width, left + side), min(height, top + side))
    small = [
        np.asarray(
            (
                picture if picture.size == (width, height) else picture.resize((width, height))
            ).resize((size, size), Image.Resampling.BILINEAR, box)
        )
        for picture, _ in found
    ]
    if train and rng.random() < flip:
        small = [pixels[:, ::-1] for pixels in small]
    last = np.minimum(np.arange(frames), len(found) - 1)
    made = {
        "value": np.stack(small)[last],
        "mask": np.arange(frames) < len(found),
        "time": np.array([time for _, time in found], np.float32)[last],
    }
    return made if train else made | {"raw": drawn.four(made["value"][made["mask"]])}


def places(
    n: int,
    frames: int,
    sampling: Sampling,
    stride: int,
    rng: np.random.Generator,
    train: bool,
) -> np.ndarray:
    """Numbers of frames, in order, among `n`; fewer than `frames` where there are not enough.

    - `uniform`: evenly from the first to the last; a single one is the middle.
    - `stride`: every `stride`-th, from a random one in training, around the middle else.
    - `segments`: one of each of `frames` equal stretches, a random one in training, the middle
      else (TSN: Wang et al. 2016, arXiv:1608.00859).
    """
    if sampling == "stride":
        count = min(frames, -(-n // stride))
        spare = n - 1 - (count - 1) * stride
        if count < frames:
            spare = 0  # from the first one on
        start = int(rng.integers(spare + 1)) if train else spare // 2
        return start + stride * np.arange(count)
    if n <= frames:
        return np.arange(n)
    if sampling == "uniform":
        if frames == 1:
            return np.array([(n - 1) // 2])
        return np.round(np.linspace(0, n - 1, frames)).astype(int)
    edges = n * np.arange(frames + 1) // frames
    if train:
        return rng.integers(edges[:-1], edges[1:])
    return (edges[:-1] + edges[1:] - 1) // 2
