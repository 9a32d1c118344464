"""The average of the parameters against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl.ema import ema_update


def test_eight_steps_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    first, *later = [
        {"a": {"kernel": rng.normal(size=(3, 2))}, "b": rng.normal()} for _ in range(9)
    ]
    want = first
    got = jax.tree.map(jnp.float32, first)
    update = jax.jit(ema_update, static_argnums=2)
    for step, params in enumerate(later):
        d = min(0.3, (1 + step) / (10 + step))  # reaches 0.3 at step 3
        want = jax.tree.map(lambda e, p, d=d: d * e + (1 - d) * p, want, params)
        got = update(got, jax.tree.map(jnp.float32, params), 0.3, step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_narrow_parameters_are_averaged_in_float32():
    ema, params = jnp.ones(4), jnp.full(4, 2, jnp.bfloat16)
    for step in range(100_000, 100_020):
        ema = ema_update(ema, params, 0.9999, step)
    assert ema.dtype == jnp.float32
    np.testing.assert_allclose(ema, 2 - 0.9999**20, rtol=1e-6)


def test_equal_parameters_stay_to_the_bit():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    ema = ema_update(params, params, 0.999, 7)
    np.testing.assert_array_equal(ema["kernel"], params["kernel"])
