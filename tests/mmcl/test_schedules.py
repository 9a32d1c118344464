"""Schedules against their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from mmcl import schedules

ALL = {
    "constant": schedules.constant,
    "warmup_cosine": schedules.warmup_cosine,
    "warmup_linear": schedules.warmup_linear,
    "warmup_rsqrt": schedules.warmup_rsqrt,
}
every = pytest.mark.parametrize("name", ALL)


@pytest.mark.parametrize(
    "name, options, after",
    [
        ("constant", {}, lambda t: 0.3),
        ("warmup_cosine", {}, lambda t: 0.3 * (1 + math.cos(math.pi * t / 80)) / 2),
        (
            "warmup_cosine",
            dict(end=0.03),
            lambda t: 0.03 + 0.27 * (1 + math.cos(math.pi * t / 80)) / 2,
        ),
        ("warmup_linear", {}, lambda t: 0.3 * (1 - t / 80)),
        ("warmup_linear", dict(end=0.03), lambda t: 0.3 - 0.27 * t / 80),
        ("warmup_rsqrt", {}, lambda t: 0.3 * math.sqrt(10_000 / (t + 10_000))),
        ("warmup_rsqrt", dict(timescale=20), lambda t: 0.3 * math.sqrt(20 / (t + 20))),
        (
            "warmup_rsqrt",
            dict(timescale=20, cooldown=40),
            lambda t: 0.3 * math.sqrt(20 / (t + 20)) * min(1, (80 - t) / 40),
        ),
    ],
)
def test_formula(name, options, after):
    schedule = jax.jit(ALL[name](steps=100, peak=0.3, warmup=20, **options))
    for step in range(100 + 1):
        want = 0.3 * step / 20 if step < 20 else after(step - 20)
        np.testing.assert_allclose(schedule(step), want, rtol=1e-5, atol=1e-7, err_msg=str(step))
    np.testing.assert_allclose(schedule(250), after(80), rtol=1e-5, atol=1e-7)


def test_rsqrt_with_the_warmup_as_timescale_is_that_of_the_transformer():
    schedule = schedules.warmup_rsqrt(steps=4000, peak=2.0, warmup=50, timescale=50)
    for step in (50, 51, 200, 4000):
        want = 2 * min(step**-0.5, step * 50**-1.5) / 50**-0.5  # Vaswani et al. 2017, (3)
        np.testing.assert_allclose(schedule(step), want, rtol=1e-6)


@every
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_rises_to_the_peak_and_never_again(name, data):
    steps = data.draw(st.integers(1, 300))
    warmup = data.draw(st.integers(0, steps - 1))
    schedule = ALL[name](steps=steps, peak=0.7, warmup=warmup)
    rate = np.asarray(jax.vmap(schedule)(jnp.arange(301)))  # one length: one compilation
    np.testing.assert_allclose(rate[warmup], 0.7, rtol=1e-6)
    assert rate[0] == (0 if warmup else rate[warmup])
    assert (np.diff(rate[: warmup + 1]) > 0).all()
    assert (np.diff(rate[warmup:]) <= 1e-7).all()
    assert (rate[warmup:steps] > 0).all()


@every
def test_a_python_step_and_a_traced_one_give_the_same_scalar(name):
    schedule = ALL[name](steps=10, peak=0.7, warmup=3)
    for step in (0, 2, 3, 7, 10):
        traced = jax.jit(schedule)(jnp.int32(step))
        assert jnp.shape(schedule(step)) == traced.shape == ()
        assert traced.dtype == jnp.float32
        np.testing.assert_allclose(schedule(step), traced, rtol=1e-6, atol=1e-7)


@every
@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_warmup_that_does_not_fit(name, warmup):
    with pytest.raises(InputError, match=f"schedule.warmup: {warmup} .* 10 steps"):
        ALL[name](steps=10, peak=1.0, warmup=warmup)


@pytest.mark.parametrize("options", [dict(timescale=0), dict(cooldown=8), dict(cooldown=-1)])
def test_rsqrt_that_does_not_fit(options):
    ((key, value),) = options.items()
    with pytest.raises(InputError, match=f"schedule.{key}: {value} "):
        schedules.warmup_rsqrt(steps=10, peak=1.0, warmup=3, **options)
