"""Time-series transforms against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.transforms import series

seeds = st.integers(0, 10**6)
quick = settings(max_examples=40, deadline=None)
AUGMENTATIONS = [series.jitter, series.scale, series.permute]


def run(transform, value, seed=0, train=True, **options):
    return transform(value, rng=np.random.default_rng(seed), train=train, **options)


def signal(n=30, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, channels)).astype("f4")


def windowed(n=20, length=30, channels=3, seed=0, gaps=True):
    value = signal(n, channels, seed)
    if gaps:
        value[np.random.default_rng(seed + 1).random(value.shape) < 0.2] = np.nan
    return run(series.window, value, length=length, channels=channels, missing="mask")


@quick
@given(
    n=st.integers(1, 40),
    channels=st.integers(1, 3),
    rates=st.sampled_from([(50, 20), (20, 50), (1, 3), (3, 1), (44.1, 10), (7, 7), (0.1, 0.3)]),
    seed=seeds,
)
def test_resampling_is_numpys_interpolation(n, channels, rates, seed):
    value = signal(n, channels, seed)
    from_rate, rate = rates
    found = run(series.resample, value, from_rate=float(from_rate), rate=float(rate))
    assert found.dtype == np.float32
    own = np.arange(n) / from_rate
    asked = np.arange(len(found)) / rate
    assert own[-1] - 1 / rate < asked[-1] + 1e-9 and asked[-1] <= own[-1] + 1e-9
    for c in range(channels):
        np.testing.assert_allclose(found[:, c], np.interp(asked, own, value[:, c]), atol=1e-4)


def test_gaps_stay_gaps():
    value = [0.0, 1.0, None, 3.0, 4.0]
    found = run(series.resample, value, from_rate=1.0, rate=2.0)[:, 0]
    nan = np.nan
    np.testing.assert_array_equal(found, [0, 0.5, 1, nan, nan, nan, 3, 3.5, 4])
    with pytest.raises(InputError, match="above 0"):
        run(series.resample, value, from_rate=1.0, rate=0.0)


@quick
@given(n=st.integers(1, 40), length=st.integers(1, 40), channels=st.integers(1, 3), seed=seeds)
def test_a_window_is_a_stretch_or_the_whole_and_zeros(n, length, channels, seed):
    value = signal(n, channels, seed)
    found = run(series.window, value.tolist(), seed, length=length, channels=channels)
    assert found.keys() == {"value", "mask"}
    assert found["value"].shape == (length, channels) and found["value"].dtype == np.float32
    there = min(n, length)
    assert found["mask"].tolist() == [True] * there + [False] * (length - there)
    assert not found["value"][there:].any()
    starts = range(n - there + 1)
    assert any((found["value"][:there] == value[s : s + there]).all() for s in starts)


def test_training_takes_every_stretch_and_evaluation_one():
    value = np.arange(10.0)
    starts = {run(series.window, value, seed, length=7)["value"][0, 0] for seed in range(60)}
    assert starts == {0, 1, 2, 3}
    for seed in range(5):
        found = run(series.window, value, seed, train=False, length=6)
        assert found["value"][:, 0].tolist() == [2, 3, 4, 5, 6, 7]
        assert found["raw"].dtype == np.uint8 and found["raw"].shape[2] == 3
        assert run(series.window, value, seed, False, length=6, at="first")["value"][0, 0] == 0


def test_gaps_are_masked_or_faults():
    value = np.array([[1, np.nan], [np.inf, 4], [5, 6]])
    found = run(series.window, value, length=4, channels=2, missing="mask")
    assert found["value"].tolist() == [[1, 0], [0, 4], [5, 6], [0, 0]]
    assert found["known"].tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert found["known"].dtype == bool
    assert found["mask"].tolist() == [True, True, True, False]
    with pytest.raises(Fault) as caught:
        run(series.window, value, length=4, channels=2)
    assert caught.value.kind == "nan_series"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([], "empty_series"),
        (np.zeros((0, 1)), "empty_series"),
        (3.0, "bad_series"),
        (np.zeros((2, 3, 4)), "bad_series"),
        (np.zeros((5, 2)), "bad_series"),
        ([[1.0], [2.0, 3.0]], "bad_series"),
        (["a"], "bad_series"),
    ],
)
def test_what_is_no_series_is_a_fault(value, kind):
    with pytest.raises(Fault) as caught:
        run(series.window, value, length=4)
    assert caught.value.kind == kind


def test_a_window_has_a_length():
    with pytest.raises(InputError, match="length=0"):
        run(series.window, [1.0], length=0)


@quick
@given(n=st.integers(1, 30), seed=seeds, gaps=st.booleans(), offset=st.sampled_from([0, 3, -1000]))
def test_a_window_normalises_itself(n, seed, gaps, offset):
    value = windowed(n, 30, seed=seed, gaps=gaps)
    value["value"] = np.where(value["known"], 5 * value["value"] + offset, 0).astype("f4")
    value["value"][:, 2] = np.where(value["known"][:, 2], offset + 0.1, 0)  # it does not change
    found = run(series.normalise, value)
    assert found["value"].dtype == np.float32
    np.testing.assert_array_equal(found["known"], value["known"])
    assert not found["value"][~value["known"]].any()
    assert not found["value"][:, 2].any()
    for c in (0, 1):
        known = value["known"][:, c]
        if known.sum() > 1:
            own = value["value"][known, c].astype("f8")
            want = (own - own.mean()) / own.std()
            np.testing.assert_allclose(found["value"][known, c], want, atol=2e-3)
        else:
            assert not found["value"][:, c].any()


def test_normalising_by_given_numbers():
    value = run(series.window, signal(), length=40, channels=3)
    found = run(series.normalise, value, mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0])
    want = (signal() - [1, 2, 3]) / [1, 2, 4]
    np.testing.assert_allclose(found["value"][:30], want, atol=1e-6)
    assert not found["value"][30:].any()
    for options in (
        {"mean": [0.0, 0.0, 0.0]},
        {"mean": [0.0], "std": [1.0]},
        {"mean": [0.0] * 3, "std": [1.0, 0.0, 1.0]},
    ):
        with pytest.raises(InputError, match="should both have 3 numbers"):
            run(series.normalise, value, **options)


@pytest.mark.parametrize("transform", AUGMENTATIONS)
@quick
@given(n=st.integers(1, 30), seed=seeds)
def test_augmentations_are_keyed_and_leave_what_is_not_there(transform, n, seed):
    value = windowed(n, 30, seed=seed)
    before = value["value"].copy()
    first, second = (run(transform, value, seed) for _ in range(2))
    np.testing.assert_array_equal(first["value"], second["value"])
    np.testing.assert_array_equal(value["value"], before)
    assert first["value"].dtype == np.float32 and first["value"].shape == (30, 3)
    assert not first["value"][~first["known"]].any()
    assert not first["value"][n:].any()
    np.testing.assert_array_equal(first["mask"], value["mask"])
    still = run(transform, value, seed, train=False)
    np.testing.assert_array_equal(still["value"], before)


def test_jitter_is_noise_of_its_size():
    value = run(series.window, signal(4000), length=5000, channels=3)
    noise = run(series.jitter, value, sigma=0.2)["value"] - value["value"]
    assert abs(noise[:4000].std() - 0.2) < 0.01 and abs(noise[:4000].mean()) < 0.01
    assert np.abs(np.corrcoef(noise[:4000].T) - np.eye(3)).max() < 0.06
    assert not noise[4000:].any()


def test_scale_is_one_factor_a_channel():
    value = run(series.window, np.ones((5, 2)), length=5, channels=2)
    found = np.stack([run(series.scale, value, s, sigma=0.3)["value"] for s in range(800)])
    assert (found == found[:, :1]).all()
    factors = found[:, 0]
    assert abs(factors.mean() - 1) < 0.03 and abs(factors.std() - 0.3) < 0.03
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.1


@quick
@given(n=st.integers(1, 20), segments=st.integers(1, 6), seed=seeds)
def test_permuting_moves_whole_stretches(n, segments, seed):
    ramp = np.arange(1.0, n + 1)[:, None].repeat(2, axis=1)
    value = run(series.window, ramp, length=25, channels=2, missing="mask")
    value["known"][0, 0] = False
    found = run(series.permute, value, seed, segments=segments)
    assert (found["value"][:, 0] == found["value"][:, 1]).all()
    order = found["value"][:n, 0].astype(int).tolist()
    assert sorted(order) == list(range(1, n + 1))
    assert sum(b != a + 1 for a, b in zip(order, order[1:])) <= min(segments, n) - 1
    assert not found["known"][order.index(1), 0] and found["known"][:n].sum() == 2 * n - 1
    assert not found["value"][n:].any()


def test_permuting_reaches_every_order():
    value = run(series.window, np.arange(3.0), length=3)
    orders = {tuple(run(series.permute, value, s, segments=3)["value"][:, 0]) for s in range(99)}
    assert len(orders) == 6
    cuts = {tuple(run(series.permute, value, s, segments=2)["value"][:, 0]) for s in range(99)}
    assert cuts == {(0, 1, 2), (1, 2, 0), (2, 0, 1)}
    with pytest.raises(InputError, match="segments=0"):
        run(series.permute, value, segments=0)
