"""What self-supervised recipes do to a crop, against NumPy and SciPy."""

import numpy as np
import pytest

from data_pipelines.transforms import augment

ALL = [augment.flip, augment.grey, augment.blur, augment.solarize]


def noise(seed=0, height=24, width=20):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


@pytest.mark.parametrize("transform", ALL)
def test_nothing_happens_in_evaluation_or_without_probability(transform):
    value = noise()
    for seed in range(5):
        assert run(transform, value, seed, train=False, probability=1.0) is value
        assert run(transform, value, seed, probability=0.0) is value


@pytest.mark.parametrize("transform", ALL)
def test_it_happens_with_its_probability(transform):
    value = noise()
    changed = [
        not np.array_equal(run(transform, value, seed, probability=0.3), value)
        for seed in range(400)
    ]
    assert abs(np.mean(changed) - 0.3) < 0.08


def test_flip_mirrors():
    np.testing.assert_array_equal(run(augment.flip, noise(), probability=1.0), noise()[:, ::-1])


def test_grey_is_luma():
    found = run(augment.grey, noise(), probability=1.0)
    want = noise() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - want[..., None]).max() <= 1


def test_solarize_inverts_what_is_bright():
    value = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    found = run(augment.solarize, value, probability=1.0, threshold=100)
    want = np.where(value.astype(int) >= 100, 255 - value.astype(int), value)
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blur_is_nearly_gaussian(sigma):
    """A point spreads with this standard deviation."""
    value = np.zeros((41, 41, 3), np.uint8)
    value[18:23, 18:23] = 255
    found = run(augment.blur, value, probability=1.0, sigma=(sigma, sigma))[..., 0].astype(float)
    rows = found.sum(1) / found.sum()
    spread = rows @ (np.arange(41) - 20.0) ** 2
    assert abs(spread - (sigma**2 + 2.0)) < 0.15 * (sigma**2 + 2.0)  # 2: of five pixels in a row


def test_blur_draws_its_sigma():
    value = noise(height=40, width=40)
    left = [run(augment.blur, value, seed, probability=1.0).std() for seed in range(40)]
    assert max(left) > 60 and min(left) < 25
