"""What self-supervised recipes do to a crop, in training only, each with a probability of its own.

The grey, blur, solarize and flip of SimCLR (Chen et al. 2020, arXiv:2002.05709), BYOL (Grill et al.
2020, arXiv:2006.07733) and DINO (Caron et al. 2021, arXiv:2104.14294); their colour jitter is
`image.jitter`. Pixels are uint8 (H, W, 3).
"""

import numpy as np
from PIL import Image, ImageFilter, ImageOps


def flip(
    value: np.ndarray, *, rng: np.random.Generator, train: bool, probability: float = 0.5
) -> np.ndarray:
    """Left and right change places."""
    if train and rng.random() < probability:
        mirrored = Image.fromarray(value).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(mirrored)  # a third of the time that NumPy takes
    return value


def grey(
    value: np.ndarray, *, rng: np.random.Generator, train: bool, probability: float = 0.2
) -> np.ndarray:
    """No colour, brightness as it looks (ITU-R BT.601)."""
    if train and rng.random() < probability:
        return np.asarray(ImageOps.grayscale(Image.fromarray(value)).convert("RGB"))
    return value


def blur(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    probability: float = 0.5,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> np.ndarray:
    """A Gaussian blur whose standard deviation, in pixels, is even between the two of `sigma`."""
    if train and rng.random() < probability:
        radius = rng.uniform(*sigma)
        return np.asarray(Image.fromarray(value).filter(ImageFilter.GaussianBlur(radius)))
    return value


def solarize(
    value: np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    probability: float = 0.2,
    threshold: int = 128,
) -> np.ndarray:
    """What is as bright as `threshold` or brighter is inverted, channel by channel."""
    if train and rng.random() < probability:
        return np.where(value < threshold, value, 255 - value)
    return value
