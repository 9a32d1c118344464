"""Random augmentation without a search: a few of fourteen operations, drawn evenly.

RandAugment (Cubuk, Zoph, Shlens and Le 2020, arXiv:1909.13719) and TrivialAugment (Müller and
Hutter 2021, arXiv:2103.10158), both with the operations of AutoAugment (Cubuk et al. 2019,
arXiv:1805.09501). Pixels are uint8 (H, W, 3); what an operation moves in is grey.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data_pipelines.errors import InputError

GREY = (128, 128, 128)
OPERATIONS = (
    *("identity", "auto_contrast", "equalize", "posterize", "solarize"),
    *("colour", "contrast", "brightness", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
# How far each goes at full strength: bits left out, values inverted, shares of change, degrees,
# slopes, shares of the picture's width or height.
AUTO = dict.fromkeys(("colour", "contrast", "brightness", "sharpness"), 0.9) | {
    "posterize": 4,
    "solarize": 256,
    "rotate": 30,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 0.45,
    "translate_y": 0.45,
}
WIDE = dict.fromkeys(("colour", "contrast", "brightness", "sharpness"), 0.99) | {
    "posterize": 6,
    "solarize": 256,
    "rotate": 135,
    "shear_x": 0.99,
    "shear_y": 0.99,
    "translate_x": 32 / 224,
    "translate_y": 32 / 224,
}
_MIRRORED = (*OPERATIONS[5:],)  # go either way, each as likely


def rand_augment(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    count: int = 2,
    magnitude: float = 9.0,
) -> np.ndarray:
    """RandAugment in training: `count` operations in turn, all at one magnitude.

    Args:
        count: N of the paper.
        magnitude: M of the paper, from 0 to 10; 10 is as far as AutoAugment goes.

    Raises:
        InputError: the magnitude is beyond that.
    """
    if not 0 <= magnitude <= 10:
        raise InputError(f"policies.rand_augment: magnitude={magnitude} should be from 0 to 10.")
    if not train:
        return value
    for name in rng.choice(OPERATIONS, count):
        value = apply(name, value, _signed(rng, name, AUTO.get(name, 0) * magnitude / 10))
    return value


def trivial_augment(value: np.ndarray, *, rng: np.random.Generator, train: bool) -> np.ndarray:
    """TrivialAugment in training: one operation at an even random strength, in the wide ranges."""
    if not train:
        return value
    name = str(rng.choice(OPERATIONS))
    return apply(name, value, _signed(rng, name, WIDE.get(name, 0) * rng.random()))


def apply(name: str, pixels: np.ndarray, amount: float) -> np.ndarray:
    """One of `OPERATIONS`; 0 changes nothing but with auto_contrast and equalize, which have no
    strength.

    Args:
        amount: in the unit of `AUTO`, with a sign where an operation goes either way.
    """
    picture = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    if name == "identity":
        return pixels
    if name == "auto_contrast":
        return np.asarray(ImageOps.autocontrast(picture))
    if name == "equalize":
        return np.asarray(ImageOps.equalize(picture))
    if name == "posterize":
        return np.asarray(ImageOps.posterize(picture, 8 - round(amount)))
    if name == "solarize":
        return np.asarray(ImageOps.solarize(picture, 256 - round(amount)))
    if name in _ENHANCERS:
        return np.asarray(_ENHANCERS[name](picture).enhance(1 + amount))
    if name == "rotate":
        return np.asarray(picture.rotate(amount, Image.Resampling.BILINEAR, fillcolor=GREY))
    slope_x, slope_y, x, y = {
        "shear_x": (amount, 0.0, -amount * height / 2, 0.0),  # about the middle
        "shear_y": (0.0, amount, 0.0, -amount * width / 2),
        "translate_x": (0.0, 0.0, float(math.trunc(amount * width)), 0.0),
        "translate_y": (0.0, 0.0, 0.0, float(math.trunc(amount * height))),
    }[name]
    matrix = (1.0, slope_x, x, slope_y, 1.0, y)
    affine = Image.Transform.AFFINE
    return np.asarray(
        picture.transform(picture.size, affine, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)
    )


_ENHANCERS = {
    "colour": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


def _signed(rng: np.random.Generator, name: str, amount: float) -> float:
    return -amount if name in _MIRRORED and rng.random() < 0.5 else amount
