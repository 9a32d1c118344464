"""Signals as small pictures, so that a person sees what a model was given."""

import numpy as np
from PIL import Image

SIDE = 128  # pixels, at most
_INKS = np.array(
    [[31, 119, 180], [214, 95, 14], [44, 140, 60], [170, 60, 60], [120, 90, 170], [90, 90, 90]],
    np.uint8,
)


def heat(value_TxF: np.ndarray) -> np.ndarray:
    """Time to the right, F upwards, the least black and the most white: uint8 (H, W, 3)."""
    value_FxT = value_TxF.T[::-1].astype(np.float32)
    low, high = value_FxT.min(), value_FxT.max()
    grey = np.round(255 * (value_FxT - low) / ((high - low) or 1)).astype(np.uint8)
    picture = Image.fromarray(grey)
    size = (min(picture.width, SIDE), min(picture.height, SIDE))
    small = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(small.convert("RGB"))


def curves(value_TxC: np.ndarray) -> np.ndarray:
    """Every channel as a line over time, all on one scale: uint8 (H, W, 3).

    A column of pixels is inked from the least to the most of what falls in it.
    """
    height, width = SIDE // 2, SIDE
    picture = np.full((height, width, 3), 255, np.uint8)
    low, high = value_TxC.min(), value_TxC.max()
    y_TxC = np.round((height - 1) * (high - value_TxC) / ((high - low) or 1)).astype(int)
    edges = np.linspace(0, len(y_TxC), width + 1)
    for x in range(width):
        start = min(int(edges[x]), len(y_TxC) - 1)
        part_SxC = y_TxC[start : max(start + 1, int(edges[x + 1])) + 1]  # and where it goes on
        for channel, (top, bottom) in enumerate(zip(part_SxC.min(axis=0), part_SxC.max(axis=0))):
            picture[top : bottom + 1, x] = _INKS[channel % len(_INKS)]
    return picture


def four(pixels_TxHxWx3: np.ndarray) -> np.ndarray:
    """Four frames, from the first to the last, as one picture read by rows: uint8 (H, W, 3)."""
    chosen = np.round(np.linspace(0, len(pixels_TxHxWx3) - 1, 4)).astype(int)
    side = (SIDE // 2, SIDE // 2)
    small = [
        np.asarray(Image.fromarray(pixels_TxHxWx3[i]).resize(side, Image.Resampling.BILINEAR))
        for i in chosen
    ]
    return np.vstack([np.hstack(small[:2]), np.hstack(small[2:])])
