"""What is taken out of a tile, and that nothing changes by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.pair_reduce import At, Reduce, SoftmaxMean, pair_reduce
from pallas_kernels.pair_reduce.flops import products
from pallas_kernels.pair_reduce.in_front import in_front
from pallas_kernels.pair_reduce.interpreted import interpreted

N, M, D = 6, 5, 3


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def sides(dtype=np.float32):
    rng = np.random.default_rng(0)
    rows = {"z": rng.normal(size=(N, D)), "label": np.arange(N) % 2, "weight": rng.normal(size=N)}
    cols = {
        "z": rng.normal(size=(M, D)),
        "label": np.arange(M) % 3,
        "value": rng.normal(size=(M, D)),
    }
    narrowed = [
        {k: jnp.asarray(x, dtype if x.dtype == float else None) for k, x in side.items()}
        for side in (rows, cols)
    ]
    return (
        narrowed[0],
        narrowed[1],
        {"scale": jnp.asarray(3.0, dtype), "w": jnp.ones((D, D), dtype)},
    )


def cosines(row, col, params, at):
    score = params["scale"] * (unit(row["z"]) @ unit(col["z"]).T) * row["weight"][:, None]
    same = row["label"][:, None] == col["label"]
    return {"score": jnp.where(same, score, score - 1.0), "own": at.row[:, None] * score}


ASKED = {
    "lse": Reduce("logsumexp", "score", "row"),
    "mean": Reduce(SoftmaxMean("value"), "score", "row"),
    "shared": Reduce(SoftmaxMean("own"), "score", "col"),
    "all": Reduce("sum", "own", "all"),
}


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_norms_are_taken_and_what_the_tile_does_not_read_any_more_is_dropped():
    rows, cols, params = sides()
    tile, front_rows, front_cols, asked = in_front(cosines, rows, cols, params, ASKED)
    assert shapes(front_rows) == {
        "kept": {"z": None, "label": (N,), "weight": (N,)},
        "made": [(N, D)],
    }
    assert shapes(front_cols) == {
        "kept": {"z": None, "label": (M,), "value": (M, D)},
        "made": [(M, D)],
    }
    np.testing.assert_array_equal(front_rows["made"][0], unit(rows["z"]))
    assert asked["mean"].op.value == "kept.value" and asked["shared"].op.value == "own"
    at = At(jnp.arange(2, 6), jnp.arange(1, 3))

    def block(tree, start, stop):
        return jax.tree.map(lambda x: x[start:stop], tree)

    got = tile(block(front_rows, 2, 6), block(front_cols, 1, 3), params, at)
    want = cosines(block(rows, 2, 6), block(cols, 1, 3), params, at)
    assert set(got) == set(want)
    for name, term in want.items():
        np.testing.assert_allclose(got[name], term, rtol=1e-6)


def labels(row, col, params, at):
    return {"score": (row["weight"] * 2)[:, None] * (row["label"][:, None] == col["label"])}


def dots(row, col, params, at):
    return {"score": jnp.tanh(row["z"]) @ col["z"].T}


def projected(row, col, params, at):
    return {"score": unit(row["z"] @ params["w"]) @ col["z"].T}


@pytest.mark.parametrize("tile", [labels, dots, projected])
def test_what_joins_no_numbers_or_needs_params_stays(tile):
    rows, cols, params = sides()
    asked = {"sum": Reduce("sum", "score", "all")}
    kept = in_front(tile, rows, cols, params, asked)
    assert kept.tile is tile and kept.rows is rows and kept.cols is cols


def test_nothing_of_the_size_of_the_grid_is_made():
    def tile(row, col, params, at):
        square = jnp.sum(row * row, axis=1)
        return {"score": jnp.broadcast_to(square[:, None], (len(row), len(col))) - col.sum(axis=1)}

    x, y = jnp.ones((N, D)), jnp.ones((M, D))
    made = in_front(tile, x, y, None, {"sum": Reduce("sum", "score", "all")})
    assert shapes([made.rows, made.cols]) == [
        {"kept": None, "made": [(N, 1)]},
        {"kept": None, "made": [(M,)]},
    ]


@pytest.mark.parametrize("dtype", [np.float64, jnp.bfloat16])
def test_the_answer_is_that_of_the_dense_grid(dtype):
    with jax.enable_x64(dtype == np.float64), interpreted():
        rows, cols, params = sides(dtype)

        def total(rows, cols, params, impl):
            stats = pair_reduce(cosines, rows, cols, ASKED, params, impl=impl, blocks=(16, 16))
            return sum(jnp.sum(jnp.sin(x)) for x in stats.values())

        both = jax.jit(
            jax.value_and_grad(total, argnums=(0, 1, 2), allow_int=True), static_argnums=3
        )
        got, want = both(rows, cols, params, "pallas_gpu"), both(rows, cols, params, "reference")
    bound = 1e-12 if dtype == np.float64 else 1e-2
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        if a.dtype != jax.dtypes.float0:
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            assert np.abs(a - b).max() <= bound * np.abs(b).max()


def test_normalised_vectors_of_many_parts_cost_no_further_product():
    n, d = 64, 256
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)

    def loss(x, y):
        def tile(row, col, params, at):
            return {"logit": unit(row) @ unit(col).T}

        asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col")}
        stats = pair_reduce(tile, x, y, asked, impl="pallas_gpu", blocks=(32, 32))
        return stats["row"].sum() + stats["col"].sum()

    assert products(jax.value_and_grad(loss, argnums=(0, 1)), x, x, unit=2 * n * n * d) == 4.0
