"""Seven corruptions of pictures at five severities, after ImageNet-C (Hendrycks and Dietterich
2019, arXiv 1903.12261).

| | severity 1 to 5 |
|---|---|
| `noise` | Gaussian, standard deviation 0.08 to 0.38 of the range |
| `blur` | Gaussian, radius 3 to 10 where the shorter side is 224 |
| `brightness` | 0.1 to 0.5 of the range added |
| `contrast` | 0.4 to 0.05 of the distance from each channel's mean |
| `pixelate` | to 0.6 to 0.25 of the side, by means of boxes, and back by copies |
| `jpeg` | quality 25 to 7 |
| `occlusion` | a grey square at random, of 0.05 to 0.4 of the area |

Each is a function `f(pixels_HxWx3, severity, rng)`; pixels are uint8.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

GREY = 128


def noise(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return _pixels(pixels_HxWx3 + 255 * deviation * rng.normal(size=pixels_HxWx3.shape))


def blur(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    radius = (3, 4, 6, 8, 10)[severity - 1] * min(pixels_HxWx3.shape[:2]) / 224
    return np.asarray(Image.fromarray(pixels_HxWx3).filter(ImageFilter.GaussianBlur(radius)))


def brightness(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return _pixels(pixels_HxWx3 + 255 * 0.1 * severity)


def contrast(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean_3 = pixels_HxWx3.mean(axis=(0, 1))
    return _pixels(mean_3 + kept * (pixels_HxWx3 - mean_3))


def pixelate(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    kept = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture = Image.fromarray(pixels_HxWx3)
    small = (max(1, round(kept * picture.width)), max(1, round(kept * picture.height)))
    coarse = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize(picture.size, Image.Resampling.NEAREST))


def jpeg(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels_HxWx3).save(file, "jpeg", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(file))


def occlusion(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.05, 0.1, 0.2, 0.3, 0.4)[severity - 1]
    sides = [max(1, round(share**0.5 * side)) for side in pixels_HxWx3.shape[:2]]
    place = rng.random(2)
    rows, columns = (
        slice(start := int(at * (side - size + 1)), start + size)
        for at, side, size in zip(place, pixels_HxWx3.shape, sides)
    )
    found = pixels_HxWx3.copy()
    found[rows, columns] = GREY
    return found


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


PICTURES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (noise, blur, brightness, contrast, pixelate, jpeg, occlusion)
}
