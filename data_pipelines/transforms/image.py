"""Picture transforms: from a file or RGBA pixels to the RGB square that a tower sees.

Every transform is a function `f(value, *, rng, train, **options) -> value`; `value` is a file
(bytes) until `decode`, or until a crop, which decodes what it needs; cut-out pictures are uint8
(H, W, 4) until `composite`; then uint8 (H, W, 3).
"""

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from data_pipelines.picture_file import MOST_PIXELS, Decoded, Mode, PictureFile, opened
from data_pipelines.resample import resample
from data_pipelines.transforms import crop

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: how bright red, green and blue look


def decode(
    value: bytes,
    *,
    rng: np.random.Generator,
    train: bool,
    mode: Mode = "RGB",
    least: int | None = None,
    most_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """The pixels of a JPEG, PNG, WebP, GIF, AVIF, TIFF, ... file, upright, uint8 (H, W, 3 or 4).

    Args:
        mode: "RGB", where what is transparent lies on white, or "RGBA".
        least: pixels that the shorter side needs: JPEGs are decoded at a half, a quarter or an
            eighth of their size where that leaves so many. None: all of them.
        most_pixels: a picture of more is a fault.

    Raises:
        Fault: `unreadable_image`, `truncated_image`, `huge_image`.
    """
    file = PictureFile(value, most_pixels)
    scale = least / min(file.height, file.width) if least else 1.0
    return np.ascontiguousarray(file.pixels(scale, mode))


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
    """Rotate, zoom, stretch, shift and mirror, at random in training; what comes in is transparent.

    Args:
        degrees: the most that it turns, either way.
        zoom: the least and the most that it grows.
        stretch: the most that it grows in one direction and shrinks in the other.
        shift: the farthest that it moves, as shares of width and height.
        flip: how probable it is that left and right change places.
    """
    if not train:
        return value
    picture = Image.fromarray(value)
    angle = math.radians(rng.uniform(-degrees, degrees))
    scale = rng.uniform(*zoom)
    aspect = math.exp(rng.uniform(-math.log(stretch), math.log(stretch)))
    x_scale, y_scale = scale * aspect, scale / aspect
    if rng.random() < flip:
        x_scale = -x_scale
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos / x_scale, sin / x_scale  # from the new pixel back to the old one
    d, e = -sin / y_scale, cos / y_scale
    x_middle, y_middle = picture.width / 2, picture.height / 2
    x = x_middle + rng.uniform(-shift, shift) * picture.width
    y = y_middle + rng.uniform(-shift, shift) * picture.height
    inverse = (a, b, x_middle - a * x - b * y, d, e, y_middle - d * x - e * y)
    matrix = tuple(round(number, 9) for number in inverse)  # a right angle has a cosine of 0
    if matrix == (1, 0, 0, 0, 1, 0):
        return value  # the way through premultiplied colours would round them
    return np.asarray(
        picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    )


def composite(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    colour: float = 0.0,
) -> np.ndarray:
    """Lay the picture on white; in training, with probability `colour`, on a random colour."""
    ground = (255, 255, 255)
    if train and rng.random() < colour:
        ground = tuple(rng.integers(256, size=3).tolist())
    picture = Image.fromarray(value)
    laid = Image.new("RGB", picture.size, ground)
    laid.paste(picture, mask=picture)
    return np.asarray(laid)


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
    """Change saturation, contrast and brightness by up to these shares; before that, with
    probability `channels`, permute the colour channels.

    Saturation scales the distance of a colour from its grey, contrast that from the mean grey of
    the picture, brightness that from black: all together one affine map of colours.
    """
    if not train:
        return value
    order = rng.permutation(3) if rng.random() < channels else np.arange(3)
    bright, contrasted, saturated = (
        1 + rng.uniform(-most, most) for most in (brightness, contrast, saturation)
    )
    mean_grey = LUMA @ np.einsum("hwc->c", value, dtype=np.int64)[order] / value[..., 0].size
    colours = np.empty((3, 4))
    colours[:, order] = saturated * np.eye(3) + (1 - saturated) * LUMA
    colours[:, :3] *= bright * contrasted
    colours[:, 3] = bright * (1 - contrasted) * mean_grey
    return np.asarray(Image.fromarray(value).convert("RGB", colours.ravel().tolist()))


def sketch(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    grey: float = 0.2,
    outline: float = 0.1,
    invert: float = 0.0,
) -> np.ndarray:
    """Take colour away in training: with probability `grey` all of it, with `outline` all but dark
    edges on white; then swap dark and light with probability `invert`.

    A model that shall know the drawings of an artist who uses no colour must not live on colour.
    """
    if not train:
        return value
    picture = Image.fromarray(value)
    choice = rng.random()
    if choice < grey:
        picture = ImageOps.grayscale(picture).convert("RGB")
    elif choice < grey + outline:
        edges = ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)
        edges = ImageOps.expand(ImageOps.crop(edges, 1), 1)  # the filter leaves the rim as it was
        picture = ImageOps.invert(ImageOps.autocontrast(edges)).convert("RGB")
    if rng.random() < invert:
        picture = ImageOps.invert(picture)
    return np.asarray(picture)


def resize(
    value: bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    size: int,
    fit: Literal["squash", "crop", "pad"] = "squash",
) -> dict[str, np.ndarray]:
    """The last transform: `size` × `size` pixels, antialiased; in evaluation also what to show.

    Args:
        value: pixels, or a file, of which no more is decoded than is needed.
        fit: how another shape becomes a square: "squash" stretches it, "crop" leaves out what is
            over on both sides, "pad" fills up with white.
    """
    picture = opened(value)
    if isinstance(value, bytes):
        side = (max if fit == "pad" else min)(picture.height, picture.width)  # that becomes `size`
        picture = Decoded(picture.pixels(size / side))
    pixels = picture.pixels()
    if fit == "crop":
        pixels = crop.center(pixels, rng=rng, train=train)
    elif fit == "pad":
        pixels = crop.pad(pixels, rng=rng, train=train)
    small = pixels
    if pixels.shape[:2] != (size, size):
        if isinstance(value, bytes):
            small = resample(pixels, size, size)
        else:
            small = np.asarray(
                Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
            )
    return {"value": small} if train else {"value": small, "raw": pixels}
