"""Moments kept in bfloat16: rounding against its definition, drift, bytes, devices."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from mmcl import optimizers
from mmcl.mesh import data_mesh
from mmcl.narrow_state import narrowed, stochastic_round


def neighbours(x):
    """The largest bfloat16 that is not above |x| and the next, with the sign of x: truncated bits.

    Also how far x is from the first to the second, from 0 to 1.
    """
    bits = np.abs(x).astype("f4").view("u4") >> 16
    low, high = (np.uint16(b).view(ml_dtypes.bfloat16).astype("f8") for b in (bits, bits + 1))
    return np.sign(x) * low, np.sign(x) * high, (np.abs(x.astype("f8")) - low) / (high - low)


def test_rounding_goes_to_either_neighbour_as_often_as_it_is_near():
    x = np.float32([1.001, -3.14159, 1e-30, 6.02e23, -0.9999, 255.5])
    low, high, part = neighbours(x)
    many = 20_000
    rounded = jax.jit(lambda x: stochastic_round(x, jnp.uint32(7)))(np.tile(x, (many, 1)))
    assert rounded.dtype == jnp.bfloat16
    rounded = np.asarray(rounded).astype("f8")
    assert np.all((rounded == low) | (rounded == high))
    up = (rounded == high).mean(axis=0)
    assert np.all(np.abs(up - part) < 5 * np.sqrt(part * (1 - part) / many) + 1e-12)


def test_what_bfloat16_holds_and_what_is_not_finite_stays():
    x = np.float32([0, -0.0, 1, -2.5, 2.0**-126, np.inf, -np.inf, np.nan])
    for seed in range(20):
        rounded = np.asarray(stochastic_round(jnp.asarray(x), jnp.uint32(seed)))
        np.testing.assert_array_equal(rounded.astype("f4"), x)
    everything = np.uint32([0x7FFFFFFF, 0xFFFFFFFF]).view("f4")  # NaNs whose bits would carry
    assert np.isnan(np.asarray(stochastic_round(everything, jnp.uint32(0))).astype("f4")).all()


def ran(optimizer, gradients, params):
    """The state after a step for each gradient."""

    def step(state, g):
        direction, state = optimizer.update({"kernel": g}, state, {"kernel": params})
        return state, direction["kernel"]

    return jax.jit(lambda: jax.lax.scan(step, optimizer.init({"kernel": params}), gradients))()


def test_a_second_moment_moves_as_in_float32_where_rounding_to_nearest_stands_still():
    """Gradients become ten times smaller: v falls by e in 1,000 steps, nearest never lets it."""
    rng = np.random.default_rng(0)
    size = (512,)
    gradients = jnp.asarray(rng.normal(size=(1500, *size)), jnp.float32)
    gradients = gradients.at[500:].multiply(0.1)
    adam = optax.scale_by_adam()
    full = ran(adam, gradients, jnp.zeros(size))[0].nu["kernel"]
    kept = ran(narrowed(adam), gradients, jnp.zeros(size))[0].state.nu["kernel"]
    assert kept.dtype == jnp.bfloat16
    ratio = np.asarray(kept, "f8") / np.asarray(full, "f8")
    assert abs(ratio.mean() - 1) < 0.01 and ratio.std() < 0.09

    def to_nearest(v, g):
        return (0.999 * v.astype(jnp.float32) + 0.001 * g**2).astype(jnp.bfloat16), None

    stuck = jax.jit(lambda g: jax.lax.scan(to_nearest, jnp.zeros(size, jnp.bfloat16), g))(gradients)
    assert np.mean(np.asarray(stuck[0], "f8") / np.asarray(full, "f8")) > 2


def problem(name, steps=50, lr=0.01, **section):
    """Least squares of 256 rows and 32 × 8 weights: losses on the way, and the weights."""
    rng = np.random.default_rng(1)
    x_NxD = jnp.asarray(rng.normal(size=(256, 32)), jnp.float32)
    y_NxK = x_NxD @ jnp.asarray(rng.normal(size=(32, 8)), jnp.float32)
    params = {"blocks_0": {"kernel": jnp.zeros((32, 8))}}
    optimizer = optimizers.make(params, name=name, **section)

    def step(carry, rows):
        params, state = carry

        def loss(params):
            error = x_NxD[rows] @ params["blocks_0"]["kernel"] - y_NxK[rows]
            return (error**2).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        direction, state = optimizer.update(gradient, state, params)
        return (jax.tree.map(lambda p, d: p - lr * d, params, direction), state), value

    rows = rng.integers(0, 256, (steps, 64))
    run = jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), rows))
    (params, _), losses = run()
    return np.asarray(losses), np.asarray(params["blocks_0"]["kernel"])


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("adamw", 0.03),
        ("lamb", 0.1),
        ("lion", 0.01),
        ("muon", 0.03),
        ("adafactor", 0.03),
        ("sgd", 0.03),
    ],
)
def test_fifty_steps_are_near_those_in_float32(name, lr):
    full, weights = problem(name, lr=lr)
    narrow, narrow_weights = problem(name, lr=lr, state_dtype="bfloat16")
    assert full[0] == narrow[0] and full[-1] < 0.7 * full[0]
    off = np.linalg.norm(narrow_weights - weights) / np.linalg.norm(weights)
    assert 0 < off <= 0.01 and np.abs(narrow / full - 1).max() <= 0.01


def test_chances_are_new_every_step_and_the_same_again():
    optimizer = narrowed(optax.trace(1.0))
    params = {"kernel": jnp.zeros((64, 64))}
    gradient = {"kernel": jnp.full((64, 64), 1 + 2.0**-9)}
    fresh = optimizer.init(params)
    first = optimizer.update(gradient, fresh, params)[1]
    again = optimizer.update(gradient, fresh, params)[1]
    later = optimizer.update(gradient, fresh._replace(steps=jnp.int32(7)), params)[1]
    a, b, c = (np.asarray(s.state.trace["kernel"]).astype("f4") for s in (first, again, later))
    np.testing.assert_array_equal(a, b)
    assert set(np.unique(a)) == {1.0, 1.0078125} and (a != c).mean() > 0.2


def test_eight_devices_round_as_one_does():
    mesh = data_mesh(jax.devices())
    params = {"kernel": jnp.zeros((64, 8)), "other_kernel": jnp.zeros((64, 8))}
    rng = np.random.default_rng(2)
    gradient = {name: jnp.asarray(rng.normal(size=(64, 8)), jnp.float32) for name in params}
    optimizer = narrowed(optax.scale_by_adam())
    split = NamedSharding(mesh, PartitionSpec("data"))

    def after(gradient, params):
        return jax.jit(optimizer.update)(gradient, jax.jit(optimizer.init)(params), params)[1]

    one, many = after(gradient, params), after(*jax.device_put((gradient, params), split))
    assert many.state.mu["kernel"].sharding.is_equivalent_to(split, 2)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(many))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (dict(name="adamw", state_dtype="float16"), "no 'float16'; there are float32 and bfloat16"),
        (dict(name="sgd", momentum=0.0, state_dtype="bfloat16"), "'sgd' remembers nothing"),
        (
            dict(name="adafactor", b1=0.0, min_factored=4, state_dtype="bfloat16"),
            "'adafactor' remembers nothing",
        ),
    ],
)
def test_where_there_is_nothing_to_narrow_one_line_says_so(section, said):
    with pytest.raises(InputError, match=said) as error:
        optimizers.make({"kernel": jnp.zeros((8, 8))}, **section)
    assert str(error.value).startswith("config.optimizer.state_dtype: ")
