"""Augmentation policies: each operation against NumPy, and what is drawn how often."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.transforms import policies

seeds = st.integers(0, 999)
quick = settings(max_examples=15, deadline=None)
STRENGTHLESS = ("auto_contrast", "equalize")


def noise(seed=0, height=20, width=30, low=40, high=200):
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), np.uint8)


def run(transform, seed=0, train=True, value=None, **options):
    value = noise() if value is None else value
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


@pytest.mark.parametrize("name", [n for n in policies.OPERATIONS if n not in STRENGTHLESS])
def test_no_strength_is_no_change(name):
    np.testing.assert_array_equal(policies.apply(name, noise(), 0.0), noise())


@pytest.mark.parametrize("name", policies.OPERATIONS[1:])
def test_strength_changes_pixels_and_keeps_their_form(name):
    found = policies.apply(name, noise(), 0.7 * policies.AUTO.get(name, 0))
    assert found.shape == (20, 30, 3) and found.dtype == np.uint8
    assert not np.array_equal(found, noise())


@quick
@given(seed=seeds)
def test_auto_contrast_stretches_each_channel(seed):
    value = noise(seed).astype(float)
    low, high = value.min((0, 1)), value.max((0, 1))
    found = policies.apply("auto_contrast", noise(seed), 0)
    assert np.abs(found - (value - low) * 255 / (high - low)).max() <= 1


@quick
@given(seed=seeds)
def test_equalize_makes_ranks_even(seed):
    """The cumulative histogram of each channel is straight; order stays."""
    value = (noise(seed, 200, 200, 0, 256).astype(float) ** 2 / 255).astype(np.uint8)
    found = policies.apply("equalize", value, 0)
    for was, now in zip(value.reshape(-1, 3).T, found.reshape(-1, 3).T):
        order = np.argsort(was, kind="stable")
        assert (np.diff(now[order].astype(int)) >= 0).all()
        shares = np.searchsorted(np.sort(was), was) / len(was)
        assert np.abs(now / 255 - shares).max() < 0.02


@quick
@given(seed=seeds, bits=st.integers(0, 7))
def test_posterize_leaves_out_bits(seed, bits):
    value = noise(seed)
    np.testing.assert_array_equal(policies.apply("posterize", value, bits), value >> bits << bits)


@quick
@given(seed=seeds, amount=st.integers(0, 256))
def test_solarize_inverts_the_brightest(seed, amount):
    value = noise(seed).astype(int)
    found = policies.apply("solarize", noise(seed), amount)
    np.testing.assert_array_equal(found, np.where(value >= 256 - amount, 255 - value, value))


@pytest.mark.parametrize("amount", [-0.9, 0.5, 0.9])
def test_changes_of_colour_are_blends(amount):
    value = noise().astype(float)
    grey = (value @ np.array([0.299, 0.587, 0.114]))[..., None]
    grounds = {"brightness": 0.0, "contrast": np.round(grey).mean().round(), "colour": grey}
    for name, ground in grounds.items():
        want = np.clip(ground + (1 + amount) * (value - ground), 0, 255)
        assert np.abs(policies.apply(name, noise(), amount) - want).max() <= 2.1


def test_sharpness_blends_with_a_smooth_picture():
    flat = np.full((9, 9, 3), 100, np.uint8)
    np.testing.assert_array_equal(policies.apply("sharpness", flat, 0.9), flat)
    assert policies.apply("sharpness", noise(), -0.9).std() < noise().std()
    assert policies.apply("sharpness", noise(), 0.9).std() > noise().std()


@pytest.mark.parametrize("x", [-5, 3])
def test_translations_move_whole_pixels(x):
    value, moved = noise(), policies.apply("translate_x", noise(), x / 30 + 1e-9 * x)
    inside = slice(max(0, -x), 30 - max(0, x))
    from_ = slice(max(0, x), 30 + min(0, x))
    np.testing.assert_array_equal(moved[:, inside], value[:, from_])
    assert (np.delete(moved, np.arange(30)[inside], axis=1) == policies.GREY).all()
    turned = policies.apply("translate_y", value.swapaxes(0, 1).copy(), x / 30 + 1e-9 * x)
    np.testing.assert_array_equal(turned, moved.swapaxes(0, 1))


def test_a_shear_moves_rows_by_their_distance_from_the_middle():
    value = np.zeros((41, 41, 3), np.uint8)
    value[:, 20] = 255
    found = policies.apply("shear_x", value, 0.25)
    columns = np.argmax(found[..., 0] * (found[..., 0] != 128), axis=1)
    np.testing.assert_allclose(columns, 20 - 0.25 * (np.arange(41) - 20), atol=1)
    turned = policies.apply("shear_y", value.swapaxes(0, 1).copy(), 0.25)
    np.testing.assert_array_equal(turned, found.swapaxes(0, 1))


def test_a_quarter_turn():
    value = noise(height=20, width=20)
    np.testing.assert_array_equal(policies.apply("rotate", value, 90.0), np.rot90(value))


@pytest.mark.parametrize("transform", [policies.rand_augment, policies.trivial_augment])
def test_chance_comes_from_the_generator_and_only_in_training(transform):
    assert run(transform, train=False) is not None
    np.testing.assert_array_equal(run(transform, train=False), noise())
    np.testing.assert_array_equal(run(transform, 5), run(transform, 5))
    assert len({run(transform, seed).tobytes() for seed in range(40)}) > 15


def test_operations_are_drawn_evenly_at_one_magnitude(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        policies, "apply", lambda name, v, amount: drawn.append((name, amount)) or v
    )
    for seed in range(500):
        run(policies.rand_augment, seed, count=3, magnitude=5.0)
    counts = Counter(name for name, _ in drawn)
    assert len(drawn) == 1500 and set(counts) == set(policies.OPERATIONS)
    assert max(counts.values()) < 1.5 * 1500 / 14 and min(counts.values()) > 0.6 * 1500 / 14
    amounts = {amount for name, amount in drawn if name == "rotate"}
    assert amounts == {-15.0, 15.0}
    assert {amount for name, amount in drawn if name == "solarize"} == {128.0}


def test_trivial_augment_draws_one_at_any_strength(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        policies, "apply", lambda name, v, amount: drawn.append((name, amount)) or v
    )
    for seed in range(600):
        run(policies.trivial_augment, seed)
    assert len(drawn) == 600 and {name for name, _ in drawn} == set(policies.OPERATIONS)
    degrees = [amount for name, amount in drawn if name == "rotate"]
    assert min(degrees) < -80 and max(degrees) > 80 and all(abs(d) <= 135 for d in degrees)


@pytest.mark.parametrize("magnitude", [-0.1, 10.1])
def test_a_magnitude_out_of_range_is_refused(magnitude):
    with pytest.raises(InputError, match="should be from 0 to 10"):
        run(policies.rand_augment, magnitude=magnitude)
