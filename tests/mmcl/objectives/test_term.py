"""The weighted mean of per-example values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.objectives.term import Term


def test_mean_is_weighted():
    term = Term(jnp.float32([1, 2, 10]), jnp.float32([1, 0.5, 0]))
    np.testing.assert_allclose(term.mean(), (1 * 1 + 0.5 * 2) / 1.5, rtol=1e-6)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
def test_what_has_no_weight_has_no_say_and_no_gradient(value):
    values, weights = jnp.float32([3, value]), jnp.float32([2, 0])
    mean, gradient = jax.value_and_grad(lambda v: Term(v, weights).mean())(values)
    assert mean == 3
    np.testing.assert_array_equal(gradient, [1, 0])


def test_no_weight_at_all_is_zero():
    mean, gradient = jax.value_and_grad(lambda v: Term(v, jnp.zeros(2)).mean())(jnp.ones(2))
    assert mean == 0
    np.testing.assert_array_equal(gradient, [0, 0])
