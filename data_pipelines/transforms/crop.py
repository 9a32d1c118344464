"""Parts of a picture.

A picture is a file (bytes) or pixels (uint8 (H, W, 3 or 4)). Of a file no more is decoded than the
part needs at its size, so a crop is best the first transform, without `image.decode` before it.
"""

import math

import numpy as np

from data_pipelines.picture_file import Decoded, PictureFile, opened
from data_pipelines.resample import Box, resample

Picture = bytes | np.ndarray


def random_resized(
    value: Picture,
    *,
    rng: np.random.Generator,
    train: bool,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    share: float = 1.0,
) -> np.ndarray:
    """A random part as `size` × `size` pixels (Szegedy et al. 2015, the crop of Inception).

    In evaluation the square in the middle.

    Args:
        scale: the least and the greatest share of the picture's area.
        ratio: the least and the greatest width over height.
        share: in evaluation, the side of the square over the picture's shorter side.
    """
    picture = opened(value)
    if train:
        box = random_box(rng, picture.height, picture.width, scale=scale, ratio=ratio)
    else:
        box = middle_box(picture.height, picture.width, share)
    return cut(picture, [(box, size)])[0]


def center(
    value: Picture, *, rng: np.random.Generator, train: bool, share: float = 1.0
) -> np.ndarray:
    """The square in the middle, its side this share of the picture's shorter side; pixels as they
    are."""
    pixels = opened(value).pixels()
    x0, y0, x1, y1 = map(int, middle_box(pixels.shape[0], pixels.shape[1], share))
    return pixels[y0:y1, x0:x1]


def pad(value: Picture, *, rng: np.random.Generator, train: bool, colour: int = 255) -> np.ndarray:
    """The picture in the middle of a square whose other pixels have all channels `colour`."""
    pixels = opened(value).pixels()
    height, width, channels = pixels.shape
    side = max(height, width)
    square = np.full((side, side, channels), colour, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def cut(picture: PictureFile | Decoded, parts: list[tuple[Box, int]]) -> list[np.ndarray]:
    """Parts of one picture, each a box in its pixels and the side of the square to make of it.

    The picture is decoded once, as large as the part that needs most.
    """
    scale = max(size / min(x1 - x0, y1 - y0) for (x0, y0, x1, y1), size in parts)
    pixels = picture.pixels(scale)
    eighths = round(8 * max(pixels.shape[:2]) / max(picture.height, picture.width))
    return [
        resample(pixels, size, size, tuple(edge * eighths / 8 for edge in box))
        for box, size in parts
    ]


def random_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """x0, y0, x1, y1 in whole pixels: area evenly from `scale`, log of the shape evenly from
    `ratio`, place evenly.

    After ten boxes that do not fit in, the largest in the middle whose shape is allowed.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return x, y, x + w, y + h
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * shape)), min(height, round(width / shape))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def middle_box(height: int, width: int, share: float) -> Box:
    """x0, y0, x1, y1 of a square in whole pixels."""
    side = max(1, round(share * min(height, width)))
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side
