"""Corrupted pictures."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import ndimage

from mmcl.evals import corrupted
from mmcl.evals.corruptions_pictures import PICTURES


def smooth(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(height, width, 3))
    x = ndimage.gaussian_filter(x, (3, 3, 0), mode="wrap")
    return np.uint8(np.clip(127.5 + 60 * x / x.std(), 0, 255))


def corrupt(pixels: np.ndarray, name: str, severity: int, index: int, seed: int) -> np.ndarray:
    found: np.ndarray = corrupted.corrupt(pixels, index, PICTURES, name, severity, seed)
    return found


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("name", PICTURES)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (7, 16), (32, 32)]))
@hypothesis.settings(max_examples=20)
def test_a_picture_stays_one(name: str, seed: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    before = pixels.copy()
    for severity in range(1, 6):
        found = corrupt(pixels, name, severity, 3, seed % 5)
        assert found.dtype == np.uint8 and found.shape == pixels.shape
        np.testing.assert_array_equal(found, corrupt(pixels, name, severity, 3, seed % 5))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("name", PICTURES)
def test_the_severer_the_farther_away(name: str) -> None:
    away = np.mean(
        [
            [apart(corrupt(smooth(i), name, s, i, 0), smooth(i)) for s in range(1, 6)]
            for i in range(8)
        ],
        axis=0,
    )
    assert (np.diff(away) > 0).all() and away[0] > 0


@pytest.mark.parametrize("name", PICTURES)
def test_only_noise_and_occlusion_hang_on_seed_and_record(name: str) -> None:
    seen = [corrupt(smooth(0), name, 3, *key) for key in ((1, 0), (2, 0), (1, 1), (1, 0))]
    np.testing.assert_array_equal(seen[0], seen[3])
    random = name in ("noise", "occlusion")
    assert (seen[0] != seen[1]).any() == (seen[0] != seen[2]).any() == random


def test_known_values() -> None:
    grey = np.full((224, 224, 3), 100, np.uint8)
    found = corrupt(grey, "noise", 1, 0, 0) - 100.0
    assert abs(found.mean()) < 0.3 and found.std() == pytest.approx(0.08 * 255, rel=0.01)
    assert (corrupt(grey, "brightness", 2, 0, 0) == 151).all()
    assert (corrupt(grey + np.uint8(100), "brightness", 5, 0, 0) == 255).all()
    for still in ("blur", "contrast", "pixelate", "jpeg"):
        assert apart(corrupt(grey, still, 5, 0, 0), grey) <= 1
    halves = grey.copy()
    halves[:112] = 200
    low, high = np.unique(corrupt(halves, "contrast", 3, 0, 0))
    assert (low, high) == (140, 160)
    for severity, share in enumerate((0.05, 0.1, 0.2, 0.3, 0.4), 1):
        hidden = (corrupt(grey, "occlusion", severity, 5, 0) == 128).all(axis=-1)
        assert hidden.mean() == pytest.approx(share, rel=0.02)
        rows, columns = np.nonzero(hidden)
        assert np.ptp(rows) == np.ptp(columns) == round(224 * share**0.5) - 1
    blocks = np.kron(smooth(0, 16, 16), np.ones((2, 2, 1), np.uint8))
    np.testing.assert_array_equal(corrupt(blocks, "pixelate", 2, 0, 0), blocks)  # to a half, back


def test_blur_is_gaussian() -> None:
    picture = smooth(1, 224, 224)
    for severity, radius in enumerate((3, 4, 6, 8, 10), 1):
        found = corrupt(picture, "blur", severity, 0, 0)[40:-40, 40:-40]
        expected = ndimage.gaussian_filter(picture.astype(float), (radius, radius, 0))
        assert apart(found, expected[40:-40, 40:-40]) < 2


def test_occlusion_reaches_every_pixel() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    hidden = [(corrupt(white, "occlusion", 1, i, 0) == 128)[..., 0] for i in range(600)]
    assert (np.mean(hidden, axis=0) > 0).all()
