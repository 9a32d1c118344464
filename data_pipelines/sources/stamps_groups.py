"""Which stamps must stay together: those that share a clip, a caption or, nearly, a picture."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from PIL import Image

_SIDE = 24  # pixels of the thumbnails that are compared
_NEAR = 0.1  # root mean square difference of these, of values from 0 to 1


def groups(keys: Sequence[Iterable[Hashable]], thumbnails: np.ndarray) -> list[int]:
    """The number of the group of each stamp: that of the first stamp in it.

    Args:
      keys: of each stamp, what no two groups may share (captions, digests of clips).
      thumbnails: (N, H, W, C) float32; a nearly equal pair, one of it mirrored or not, is kin.
    """
    leader = list(range(len(keys)))

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    def join(i: int, j: int) -> None:
        first, second = sorted((find(i), find(j)))
        leader[second] = first

    holders: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i, of in enumerate(keys):
        for key in of:
            holders[key].append(i)
    for first, *others in holders.values():
        for other in others:
            join(first, other)
    for i, j in np.argwhere(_nearest(thumbnails) < _NEAR).tolist():
        join(i, j)
    return [find(i) for i in range(len(keys))]


def thumbnail(picture: Image.Image) -> np.ndarray:
    """(24, 24, 4) float32 from 0 to 1: what is drawn, stretched to a square, alpha multiplied in.

    The alpha channel tells a white thing on nothing from a black one, and from another shape.
    """
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    rgba = np.asarray(picture.crop(box), np.float32) / 255
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    channels = [Image.fromarray(channel) for channel in np.moveaxis(rgba, -1, 0)]
    small = [channel.resize((_SIDE, _SIDE), Image.Resampling.BOX) for channel in channels]
    return np.stack([np.asarray(channel) for channel in small], axis=-1)


def _nearest(thumbnails: np.ndarray) -> np.ndarray:
    """(N, N) root mean square differences, or those to the mirrored picture where they are less."""
    mirrored = thumbnails[:, :, ::-1]
    flat, flipped = (a.reshape(len(a), -1).astype(np.float64) for a in (thumbnails, mirrored))
    square_N = (flat**2).sum(axis=1)
    least_NxN = np.minimum(
        *(square_N[:, None] + square_N - 2 * flat @ other.T for other in (flat, flipped))
    )
    return np.sqrt(np.maximum(least_NxN, 0) / flat.shape[1])
