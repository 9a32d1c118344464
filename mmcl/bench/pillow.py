"""The usual way to a training picture: all of the file decoded by Pillow, then a part of it."""

import io

import numpy as np
from PIL import Image

from data_pipelines.transforms.crop import random_box


def random_resized(
    value: bytes, *, rng: np.random.Generator, train: bool, size: int, draft: bool = False
) -> np.ndarray:
    """A random part as uint8 (size, size, 3), mirrored half of the time: what torchvision's
    RandomResizedCrop and RandomHorizontalFlip do to a picture of Pillow's.

    Args:
        draft: decode a JPEG at a half, a quarter or an eighth where the part needs no more, which
            nothing does by itself: it must know the part before the picture is decoded.
    """
    picture: Image.Image = Image.open(io.BytesIO(value))
    width, height = picture.size
    box = random_box(rng, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    if draft:
        scale = size / min(box[2] - box[0], box[3] - box[1])
        picture.draft("RGB", (round(width * scale), round(height * scale)))
    across, down = picture.width / width, picture.height / height
    picture = picture.convert("RGB").crop(
        (round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down))
    )
    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture)
