"""Normalised rows and what happens to those without a direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.embedding import unit


@pytest.mark.parametrize("narrow", [jnp.float32, jnp.bfloat16])
def test_rows_of_length_one_in_float32(narrow):
    z = (
        np.random.default_rng(0).normal(size=(5, 8)) * 10.0 ** np.arange(-6, 4, 2)[:, None]
    ).astype(narrow)
    got, exact = unit(z), z.astype(np.float64)
    assert got.dtype == jnp.float32
    want = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)


def test_float64_stays():
    z = np.random.default_rng(0).normal(size=(5, 8))
    with jax.enable_x64(True):
        got = jax.device_get(unit(z))
    np.testing.assert_allclose(got, z / np.linalg.norm(z, axis=1, keepdims=True), rtol=1e-14)


def test_a_zero_row_stays_zero_and_so_does_its_gradient():
    z = jnp.float32([[0, 0], [3, 4]])
    y, vjp = jax.vjp(unit, z)
    np.testing.assert_allclose(y, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    (gradient,) = vjp(jnp.float32([[1, 2], [1, 2]]))
    radial = (0.6 * 1 + 0.8 * 2) * np.array([0.6, 0.8])
    np.testing.assert_allclose(gradient, [[0, 0], (np.array([1, 2]) - radial) / 5], atol=1e-6)
