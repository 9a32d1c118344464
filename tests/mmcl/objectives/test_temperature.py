"""The logit scale in and out of its bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.objectives.temperature import logit_scale

BOUND = math.log(100.0)
scale_and_vjp = jax.jit(lambda x, g: (lambda y, vjp: (y, vjp(g)[0]))(*jax.vjp(bounded, x)))


def bounded(x):
    return logit_scale(x, 100.0)


@settings(deadline=None)
@given(st.floats(-3, 7, width=32), st.floats(-5, 5, width=16))
def test_the_gradient_at_the_bound_passes_only_inward(x, g):
    """A positive gradient is a descent step down, back inside; a negative one leads further out."""
    scale, gradient = scale_and_vjp(np.float32(x), np.float32(g))
    inside = np.float32(x) < np.float32(BOUND)
    np.testing.assert_allclose(scale, math.exp(x) if inside else 100, rtol=2e-6)
    np.testing.assert_allclose(gradient, g * float(scale) if inside or g > 0 else 0, rtol=1e-6)


@pytest.mark.parametrize("x", [BOUND, BOUND + 1e-3, 80.0])
@pytest.mark.parametrize("g, passes", [(-2.0, 0.0), (2.0, 200.0)])
def test_at_and_over_the_bound(x, g, passes):
    scale, gradient = scale_and_vjp(jnp.float32(x), jnp.float32(g))
    np.testing.assert_allclose([scale, gradient], [100.0, passes], rtol=1e-6)


def test_without_a_bound_it_is_exp():
    x = jnp.float32([-2.0, 0.0, 5.0, 7.0])
    np.testing.assert_allclose(logit_scale(x, None), np.exp(x), rtol=1e-6)
    gradient = jax.grad(lambda x: -logit_scale(x, None).sum())(x)
    np.testing.assert_allclose(gradient, -np.exp(x), rtol=1e-6)


@pytest.mark.parametrize("target", [50.0, 500.0])
def test_descent_neither_runs_away_nor_sticks(target):
    """Towards a scale inside it comes back from outside; towards one outside it stays at 100."""
    step = jax.jit(jax.grad(lambda x: (logit_scale(x, 100.0) / target - 1) ** 2))
    x = jnp.float32(BOUND + 0.5 if target < 100 else BOUND - 0.5)
    for _ in range(300):
        x = x - 0.05 * step(x)
    np.testing.assert_allclose(jnp.exp(x), min(target, 100.0), rtol=0.02)
