"""Picture transforms: RGBA pixels to the RGB square that a tower sees.

Every transform is a function `f(value, *, rng, train, **options) -> value`; `value` is uint8
(H, W, 4) until `composite`, then (H, W, 3).
"""

import math
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps


def affine(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    degrees: float = 15.0,
    zoom: tuple[float, float] = (0.8, 1.1),
    stretch: float = 1.1,
    shift: float = 0.08,
    flip: float = 0.0,
) -> np.ndarray:
    """Rotate, zoom, stretch, shift (a share of the width) and mirror, at random in training."""
    if not train:
        return value
    size = value.shape[0]
    angle = math.radians(rng.uniform(-degrees, degrees))
    scale = rng.uniform(*zoom)
    aspect = math.exp(rng.uniform(-math.log(stretch), math.log(stretch)))
    x_scale, y_scale = scale * aspect, scale / aspect
    if rng.random() < flip:
        x_scale = -x_scale
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos / x_scale, sin / x_scale  # from the new pixel back to the old one
    d, e = -sin / y_scale, cos / y_scale
    middle = size / 2
    x, y = middle + rng.uniform(-shift, shift, 2) * size
    matrix = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
    picture = Image.fromarray(value, "RGBA" if value.shape[2] == 4 else "RGB")
    moved = picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def composite(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    colour: float = 0.0,
) -> np.ndarray:
    """Lay the picture on white; in training, with probability `colour`, on a random colour."""
    background = np.full(3, 255.0, np.float32)
    if train and rng.random() < colour:
        background = rng.uniform(0, 255, 3).astype(np.float32)
    rgb = value[..., :3].astype(np.float32)
    alpha = value[..., 3:].astype(np.float32) / 255
    return (rgb * alpha + background * (1 - alpha) + 0.5).astype(np.uint8)


def jitter(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.4,
    channels: float = 0.0,
) -> np.ndarray:
    """Change brightness, contrast and saturation by up to these shares; with probability
    `channels` also permute the colour channels.
    """
    if not train:
        return value
    rgb = value.astype(np.float32)
    if rng.random() < channels:
        rgb = rgb[..., rng.permutation(3)]
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    rgb = grey[..., None] + (rgb - grey[..., None]) * rng.uniform(1 - saturation, 1 + saturation)
    mean = grey.mean()
    rgb = mean + (rgb - mean) * rng.uniform(1 - contrast, 1 + contrast)
    rgb = rgb * rng.uniform(1 - brightness, 1 + brightness)
    return np.clip(rgb + 0.5, 0, 255).astype(np.uint8)


def sketch(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    grey: float = 0.2,
    outline: float = 0.1,
    invert: float = 0.0,
) -> np.ndarray:
    """Take colour away in training: with these probabilities grey, only the edges, or inverted.

    A model that shall know the drawings of an artist who uses no colour must not live on colour.
    """
    if not train:
        return value
    picture: Any = Image.fromarray(value)
    choice = rng.random()
    if choice < grey:
        picture = ImageOps.grayscale(picture).convert("RGB")
    elif choice < grey + outline:
        edges = ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)
        picture = ImageOps.invert(ImageOps.autocontrast(edges)).convert("RGB")
    if rng.random() < invert:
        picture = ImageOps.invert(picture)
    return np.asarray(picture)


def resize(
    value: np.ndarray, *, rng: np.random.Generator, train: bool, size: int
) -> dict[str, np.ndarray]:
    """The last transform: `size` × `size` pixels, antialiased; in evaluation also what to show."""
    small = value
    if value.shape[:2] != (size, size):
        small = np.asarray(Image.fromarray(value).resize((size, size), Image.Resampling.BILINEAR))
    return {"value": small} if train else {"value": small, "raw": value}
