"""What is the GPU kernel's own: waves, cut vectors, parts over all pairs, functions, sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pallas_kernels.pair_reduce import Reduce, SoftmaxMean, gpu_functions, pair_reduce, pallas_gpu
from pallas_kernels.pair_reduce.blocks import choose
from pallas_kernels.pair_reduce.interpreted import interpreted
from pallas_kernels.pair_reduce.sweep import State, sweep
from pallas_kernels.pair_reduce.types import At


@pytest.fixture(autouse=True)
def on_the_cpu():
    with interpreted():
        yield


@pytest.mark.parametrize("size", [1, 5, 16, 24, 33, 64, 65, 96, 130, 200, 512, 576, 768, 1152])
def test_vectors_are_cut_into_powers_of_two_that_tensor_cores_take(size):
    width = pallas_gpu.width(size)
    assert width.bit_count() == 1 and 16 <= width <= 64
    filled = {narrower: -size % narrower for narrower in (16, 32, 64)}
    assert width == 16 or filled[width // 2] == filled[width]
    assert width == 64 or size <= width or filled[2 * width] > filled[width]


def cosines(row, col, params, at):
    """Normalised vectors, a projection that all tiles share, a sum over entries. Nothing of it can
    be made in front of the kernel, for all of it needs params.
    """

    def unit(z):
        z = z * params["one"]
        return z / jnp.sqrt(jnp.sum(z * z, axis=1, keepdims=True))

    score = unit(row["z"]) @ unit(col["z"]).T
    score = score + (row["z"] @ params["w"]) @ col["y"].T
    curve = jnp.exp(0.1 * params["one"] * row["z"]).sum(axis=1) + (row["z"] * params["b"]).sum(
        axis=1
    )
    return {"score": 3 * score + curve[:, None]}


ASKED = {
    "lse": Reduce("logsumexp", "score", "row"),
    "max": Reduce("max", "score", "col"),
    "mean": Reduce(SoftmaxMean("z"), "score", "row"),
    "all": Reduce("logsumexp", "score", "all"),
}


def test_vectors_of_many_cuts_have_the_values_and_gradients_of_the_dense_grid():
    """150 numbers are cut into three, 90 into two; of either the last is not full."""
    rng = np.random.default_rng(0)
    n, m, d, e = 36, 52, 150, 90
    rows = {"z": rng.normal(size=(n, d))}
    cols = {"z": rng.normal(size=(m, d)), "y": rng.normal(size=(m, e))}
    params = {"w": rng.normal(size=(d, e)) / 90, "b": rng.normal(size=d) / 9, "one": 1.1}

    def run(args, **options):
        stats = pair_reduce(cosines, args[0], args[1], ASKED, args[2], groups=2, **options)
        weights = np.random.default_rng(1)
        return sum(jnp.sum(x * weights.normal(size=x.shape)) for x in stats.values())

    def both(**options):
        step = jax.jit(jax.value_and_grad(partial(run, **options)))
        return jax.device_get(step((rows, cols, params)))

    with jax.enable_x64(True):
        got, want = both(impl="pallas_gpu", blocks=(16, 16)), both(impl="reference")
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()


@pytest.mark.parametrize("n, m", [(16, 16), (70, 33), (20, 100)])
@pytest.mark.parametrize("summed", [True, False])
def test_what_was_accumulated_before_enters_once(n, m, summed):
    """Into sums, and into the largest of all, of which -inf is the empty state."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n).astype("f"), rng.normal(size=m).astype("f")
    join = jnp.add if summed else jnp.maximum
    fold = jnp.sum if summed else jnp.max

    def visit(row, col, state, at, valid):
        grid = row[:, None] * col
        if valid is not None:
            grid = jnp.where(valid, grid, 0.0 if summed else -jnp.inf)
        seen = State(fold(grid, axis=1), fold(grid, axis=0), fold(grid))
        return jax.tree.map(join, state, seen)

    state = State(jnp.full(n, 5.0), jnp.full(m, 6.0), jnp.float32(7))
    options = {} if summed else {"merge": jnp.maximum, "empty": jnp.float32(-jnp.inf)}
    start = At(jnp.int32(0), jnp.int32(0))

    @partial(jax.jit, static_argnums=0)
    def run(how):
        return how(visit, x, y, state, start, blocks=(16, 16), **options)

    for got, want in zip(run(pallas_gpu.sweep), run(sweep)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_blocks_that_are_no_powers_of_two_are_made_smaller():
    made = [pallas_gpu._rounded(size) for size in (1, 15, 16, 31, 32, 100, 128, 129, 4096)]
    assert made == [16, 16, 16, 16, 32, 64, 128, 128, 128]


def test_an_array_of_too_many_matrices_is_refused():
    """Before anything is compiled, for it would take minutes."""

    def late(row, col, params, at):
        tokens = jnp.einsum("rtd,cud->rtcu", row, col)
        return {"score": jnp.max(tokens, axis=3).sum(axis=1)}

    x = jnp.ones((32, 9, 16))
    with pytest.raises(NotImplementedError, match="pallas_gpu: .* 81 matrices .* 32 is the most"):
        pair_reduce(late, x, x, {"a": Reduce("sum", "score", "row")}, impl="pallas_gpu")


NUMBERS = np.concatenate(
    [np.linspace(-5, 5, 2001), np.arange(-9, 9) / 2, [0.0, -0.0, 1e-30, np.inf, -np.inf, np.nan]]
).astype("f")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erf_is_good_to_rounding(dtype):
    with jax.enable_x64(True):
        x = NUMBERS.astype(dtype)
        want = np.asarray(lax.erf(x.astype(np.float64)))
        got = np.asarray(gpu_functions.INSTEAD["erf"](jnp.asarray(x), accuracy=None))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("method", list(lax.RoundingMethod))
def test_round(method):
    got = gpu_functions.INSTEAD["round"](jnp.asarray(NUMBERS), rounding_method=method)
    np.testing.assert_array_equal(got, lax.round(NUMBERS, method))


def test_the_larger_and_the_smaller_of_two_numbers_one_of_which_may_be_nan():
    x, y = map(jnp.asarray, np.meshgrid(NUMBERS[-24:], NUMBERS[-24:]))
    np.testing.assert_array_equal(gpu_functions.INSTEAD["max"](x, y), lax.max(x, y))
    np.testing.assert_array_equal(gpu_functions.INSTEAD["min"](x, y), lax.min(x, y))


def test_a_selection_of_several():
    which = jnp.arange(12) % 3
    cases = [jnp.arange(12.0) + 100 * k for k in range(3)]
    select = gpu_functions.INSTEAD["select_n"]
    np.testing.assert_array_equal(select(which, *cases), lax.select_n(which, *cases))
    two = which == 1, *cases[:2]
    np.testing.assert_array_equal(select(*two), lax.select_n(*two))


def test_a_tile_gets_smaller_with_what_is_made_in_it():
    def products(row, col, params, at):
        return {"score": row @ col.T}

    def curves(row, col, params, at):
        score = row @ col.T
        made = [jnp.tanh(score + k) for k in range(6)]
        return {"score": sum(x * y for x, y in zip(made, made[1:]))}

    def late(row, col, params, at):
        row, col = (x.reshape(len(x), 8, 1) + jnp.ones(64) for x in (row[:, :8], col[:, :8]))
        return {"score": jnp.einsum("rtd,cud->rtcu", row, col).max(axis=3).sum(axis=1)}

    x = jax.ShapeDtypeStruct((4096, 512), jnp.float32)
    sizes = [choose(tile, x, x, None, "pallas_gpu") for tile in (products, curves, late)]
    areas = [r * c for r, c in sizes]
    assert areas[0] > areas[1] > areas[2]
    assert all(size in (16, 32, 64, 128) for blocks in sizes for size in blocks)
