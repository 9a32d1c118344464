"""Pixels in another number, antialiased: a triangle filter as wide as what becomes one pixel.

fast_image_resize (by way of cykooz-resizer) does with SIMD what Pillow's BILINEAR does without, and
may differ from it by 1 of 255. Where it has no wheel (Linux on ARM), Pillow does it.
"""

import importlib.util
import math

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

_HAS_SIMD = importlib.util.find_spec("cykooz_resizer") is not None


def resample(value: np.ndarray, height: int, width: int, box: Box | None = None) -> np.ndarray:
    """Pixels uint8 (height, width, C) of what is inside `box`, of all where there is none.

    Args:
      value: uint8 (H, W, 3 or 4); colours are weighted with alpha.
      box: may fall between pixels; nothing outside is looked at.
    """
    x0, y0, x1, y1 = box or (0, 0, value.shape[1], value.shape[0])
    x1, y1 = min(x1, value.shape[1]), min(y1, value.shape[0])  # past it by rounding only
    left, top = int(x0), int(y0)
    value = value[top : math.ceil(y1), left : math.ceil(x1)]
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    if value.shape[:2] == (height, width) and box == (0, 0, width, height):
        return np.ascontiguousarray(value)
    return (_simd if _HAS_SIMD else _pillow)(value, height, width, box)


def _simd(value: np.ndarray, height: int, width: int, box: Box) -> np.ndarray:
    import cykooz_resizer as simd

    kind = {3: simd.PixelType.U8x3, 4: simd.PixelType.U8x4}[value.shape[2]]
    made = simd.ImageData(width, height, kind)
    options = simd.ResizeOptions(
        resize_alg=simd.ResizeAlg.convolution(simd.FilterType.bilinear),
        crop_box=simd.CropBox(box[0], box[1], box[2] - box[0], box[3] - box[1]),
        use_alpha=value.shape[2] == 4,
    )
    source = simd.ImageData(value.shape[1], value.shape[0], kind, value.tobytes())
    simd.Resizer().resize(source, made, options)
    return np.frombuffer(made.get_buffer(), np.uint8).reshape(height, width, value.shape[2])


def _pillow(value: np.ndarray, height: int, width: int, box: Box) -> np.ndarray:
    picture = Image.fromarray(value)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
