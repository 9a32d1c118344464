"""Corrupted signals and vectors."""

import numpy as np
import pytest

from mmcl.evals import corrupted
from mmcl.evals.corruptions_floats import FLOATS

SIGNAL = 3 + 2 * np.sin(np.arange(4000) / 50).astype(np.float32)


def corrupt(value: np.ndarray, name: str, severity: int, index: int = 0) -> np.ndarray:
    found: np.ndarray = corrupted.corrupt(value, index, FLOATS, name, severity, 0)
    return found


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (7,), (20, 3), (2, 30)])
def test_the_shape_stays(name: str, shape: tuple[int, ...]) -> None:
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before = value.copy()
    for severity in range(1, 6):
        found = corrupt(value, name, severity)
        assert found.shape == shape and np.isfinite(found).all()
        np.testing.assert_array_equal(found, corrupt(value, name, severity))
    np.testing.assert_array_equal(value, before)


@pytest.mark.parametrize("name", FLOATS)
def test_the_severer_the_farther_away(name: str) -> None:
    away = [np.sqrt(np.mean((corrupt(SIGNAL, name, s) - SIGNAL) ** 2)) for s in range(1, 6)]
    if name != "shift":  # which comes round again
        assert (np.diff(away) > 0).all()
    assert away[0] > 0


def test_known_values() -> None:
    deviation = SIGNAL.std()
    for severity, share in enumerate((0.1, 0.2, 0.4, 0.7, 1.0), 1):
        noise = corrupt(SIGNAL, "noise", severity) - SIGNAL
        assert noise.std() == pytest.approx(share * deviation, rel=0.05)
        assert abs(noise.mean()) < 0.1 * deviation
    for severity, share in enumerate((0.05, 0.1, 0.2, 0.35, 0.5), 1):
        found = corrupt(SIGNAL, "dropout", severity)
        gone = found != SIGNAL
        assert gone.mean() == pytest.approx(share, abs=0.02)
        np.testing.assert_allclose(found[gone], SIGNAL.mean(), rtol=1e-5)
    np.testing.assert_allclose(corrupt(SIGNAL, "gain", 3), 2 * SIGNAL)
    np.testing.assert_allclose(corrupt(SIGNAL, "offset", 3), SIGNAL + deviation, rtol=1e-5)
    np.testing.assert_array_equal(corrupt(SIGNAL, "shift", 3)[400:], SIGNAL[:-400])
    channels = np.stack([SIGNAL, -SIGNAL])
    np.testing.assert_array_equal(corrupt(channels, "shift", 1)[:, 80:], channels[:, :-80])


def test_dropout_grows() -> None:
    gone = [corrupt(SIGNAL, "dropout", s) != SIGNAL for s in (1, 3)]
    assert (gone[1] | ~gone[0]).all()
    assert (corrupt(SIGNAL, "noise", 1, 1) != corrupt(SIGNAL, "noise", 1, 2)).any()
