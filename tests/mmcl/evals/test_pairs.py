"""All pairs of two sets of unit vectors, on one device and on many."""

import contextlib
import re
from collections.abc import Iterator

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import pairs
from mmcl.mesh import data_mesh


def unit_rows(rng: np.random.Generator, n: int, d: int = 24) -> np.ndarray:
    z_NxD = rng.normal(size=(n, d))
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


@contextlib.contextmanager
def on(devices: int) -> Iterator[None]:
    """On a mesh of so many devices; 0: without one."""
    with jax.set_mesh(data_mesh(jax.devices()[:devices])) if devices else contextlib.nullcontext():
        yield


@pytest.mark.parametrize("devices", [0, 1, 8])
@hypothesis.given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=15, deadline=None)
def test_equal_numpy(devices: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_QxD, z_GxD = unit_rows(rng, n), unit_rows(rng, m)
    label_G = rng.integers(m, size=m)
    label_Q = rng.choice(label_G, n)
    score_QxG = z_QxD.astype(np.float64) @ z_GxD.T.astype(np.float64)
    right_QxG = label_Q[:, None] == label_G
    best_Q = np.where(right_QxG, score_QxG, -np.inf).max(axis=1)
    before_QxG = (score_QxG - best_Q[:, None] + pairs.TIE) * ~right_QxG
    hypothesis.assume(not (np.abs(before_QxG[~right_QxG]) < 5e-7).any())  # rounding decides
    k = [1, 5, 200][seed % 3]
    with on(devices):
        rank_Q = pairs.ranks(z_QxD, z_GxD, label_Q, label_G)
        index_Qxk, found_Qxk = pairs.nearest(z_QxD, z_GxD, k)
        spread = pairs.log_mean_exp(z_GxD, 4.0)
    np.testing.assert_array_equal(rank_Q, 1 + (before_QxG > 0).sum(axis=1))
    np.testing.assert_allclose(found_Qxk, -np.sort(-score_QxG, axis=1)[:, :k], atol=1e-6)
    found = np.take_along_axis(score_QxG, index_Qxk, axis=1)
    np.testing.assert_allclose(found, found_Qxk, atol=1e-6)
    assert index_Qxk.shape == (n, min(k, m))
    if m > 1:
        inside = (z_GxD.astype(np.float64) @ z_GxD.T)[~np.eye(m, dtype=bool)]
        assert spread == pytest.approx(np.log(np.mean(np.exp(4 * inside))), abs=3e-6)
    else:
        assert np.isnan(spread)


def test_no_grid_is_stored() -> None:
    """Twice as many items take less than three times the memory; a grid would take four times."""
    temp = []
    for n in (3001, 6002):
        side = pairs.side(unit_rows(np.random.default_rng(0), n), np.arange(n))
        for work in (pairs._ahead, lambda a, b: pairs._top(a, b, 10)):
            lowered = jax.jit(work).lower(side, side).compile()
            assert not re.search(rf"\[{len(side['real'])},{len(side['real'])}\]", lowered.as_text())
            temp.append(lowered.memory_analysis().temp_size_in_bytes)
    assert temp[2] < 3 * temp[0] and temp[3] < 3 * temp[1]


def test_a_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no right answer"):
        pairs.ranks(np.eye(2), np.eye(2), np.array([0, 1]), np.array([0, 2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 2.0])
def test_a_diverged_model_is_named(bad: float) -> None:
    z_NxD = np.eye(4)
    z_NxD[2, 2] = bad
    with pytest.raises(InputError, match="1 of 4 'sound' embeddings are NaN or not of unit"):
        pairs.check_unit(z_NxD, "sound")
