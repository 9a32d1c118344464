"""Every kernel against the dense reference: what `xla` is held to, interpreted on the CPU."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType

from pallas_kernels.pair_reduce import Reduce, Sample, SoftmaxMean, TopK, pair_reduce, pair_sum
from pallas_kernels.pair_reduce.flops import products
from pallas_kernels.pair_reduce.interpreted import interpreted

INF = math.inf
KERNELS = ["pallas_tpu", "pallas_gpu"]


@pytest.fixture(params=KERNELS)
def impl(request):
    with interpreted():
        yield request.param


def tile(row, col, params, at):
    """Products, a curve, masks by label, flag and position; nested leaves, tokens."""
    score = params["scale"]["t"] * (row["z"] @ col["z"].T) + row["bias"][:, None]
    tokens = jnp.einsum("rtd,cud->rtcu", row["teacher"]["z"], col["teacher"]["z"])
    late = jnp.max(tokens, axis=3).sum(axis=1) + (params["weight"] * row["z"]).sum(axis=1)[:, None]
    other = (row["label"][:, None] != col["label"]) & col["seen"]
    itself = at.row[:, None] == at.col
    return {
        "score": jnp.where(other & ~itself, score, -INF),
        "curve": jnp.tanh(score - params["shift"]) * col["bias"],
        "late": late,
        "unused": row["bias"] > 0,
    }


EVERY = {
    f"{name} per {per}": Reduce(op, term, per)
    for name, op, term in [
        ("sum", "sum", "curve"),
        ("late", "sum", "late"),
        ("logsumexp", "logsumexp", "score"),
        ("max", "max", "score"),
        ("mean of a term", SoftmaxMean("curve"), "score"),
        ("mean of itself", SoftmaxMean("score"), "score"),
        ("mean of a leaf", SoftmaxMean("bias"), "score"),
        ("mean of a nested leaf", SoftmaxMean("teacher.z"), "score"),
    ]
    for per in ("row", "col", "all")
    if not (per == "all" and "leaf" in name)
}


def side(rng, n, dtype):
    return {
        "z": rng.normal(size=(n, 24)).astype(dtype),
        "bias": rng.normal(size=n).astype(dtype),
        "teacher": {"z": rng.normal(size=(n, 2, 3)).astype(dtype)},
        "label": rng.integers(0, 4, n).astype(np.int32),
        "seen": rng.random(n) < 0.9,
    }


def inputs(n, m, dtype=np.float64):
    rng = np.random.default_rng(n * 100 + m)
    params = {"scale": {"t": dtype(0.7)}, "shift": dtype(0.1), "weight": dtype(0.3) * np.ones(24)}
    rows, cols = side(rng, n, dtype), side(rng, m, dtype)
    rows["label"][0] = 9
    cols["label"][:2] = 9
    return rows, cols, jax.tree.map(lambda x: np.asarray(x, dtype), params)


def differentiated(trees, reductions, **options):
    """Statistics, and gradients of all float leaves under random cotangents."""
    leaves, structure = jax.tree.flatten(trees)
    where = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def run(floats):
        whole = list(leaves)
        for i, x in zip(where, floats):
            whole[i] = x
        rows, cols, params = structure.unflatten(whole)
        return pair_reduce(tile, rows, cols, reductions, params, **options)

    def both(floats):
        stats, pull = jax.vjp(run, floats)
        rng = np.random.default_rng(0)
        cotangents = {
            name: jnp.where(jnp.isneginf(x), 0, rng.normal(size=x.shape).astype(x.dtype))
            for name, x in stats.items()
        }
        return stats, pull(cotangents)[0]

    return jax.device_get(jax.jit(both)([leaves[i] for i in where]))


@pytest.mark.parametrize(
    "n, m, blocks, groups",
    [
        (7, 11, None, None),
        pytest.param(40, 70, (16, 32), None, marks=pytest.mark.long),
        (60, 40, (16, 16), 4),
    ],
)
def test_every_statistic_and_gradient_is_that_of_the_dense_grid(
    assert_close, impl, n, m, blocks, groups
):
    with jax.enable_x64(True):
        trees = inputs(n, m)
        run = partial(differentiated, trees, EVERY, groups=groups)
        got, want = run(impl=impl, blocks=blocks), run(impl="reference")
    assert all(np.any(x) for x in jax.tree.leaves(want[1]))
    assert_close(got, want, 1e-12)


def products_of(row, col, params, at):
    return {"score": params * (row @ col.T)}


def clip(x, y, scale, **options):
    asked = {per: Reduce("logsumexp", "score", per) for per in ("row", "col")}
    stats = pair_reduce(products_of, x, y, asked, scale, **options)
    n = min(len(x), len(y))
    positive = (x[:n].astype(scale.dtype) * y[:n].astype(scale.dtype)).sum(axis=1)
    return stats["row"].mean() + stats["col"].mean() - 2 * scale * positive.mean()


def pairwise(row, col, params, at):
    logit = params * (row @ col.T)
    return {"loss": jax.nn.softplus(jnp.where(at.row[:, None] == at.col, -logit, logit))}


def siglip(x, y, scale, **options):
    total, by_row = pair_sum(pairwise, x, y, {"loss": 1.0}, scale, **options)
    return (total + 0 * by_row.sum()) / len(x)


def unit(rng, n, d=24):
    z = rng.normal(size=(n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("loss", [clip, siglip])
@pytest.mark.parametrize("narrow", [np.float32, jnp.bfloat16])
def test_errors_are_those_of_rounding(impl, loss, narrow):
    rng = np.random.default_rng(0)
    x, y = unit(rng, 101).astype(narrow), unit(rng, 83).astype(narrow)

    def run(dtype, scale, **options):
        step = jax.jit(jax.value_and_grad(partial(loss, **options), argnums=(0, 1, 2)))
        return jax.device_get(step(x.astype(dtype), y.astype(dtype), scale))

    with jax.enable_x64(True):
        want = run(np.float64, np.float64(20), impl="reference")
    got = run(narrow, np.float32(20), impl=impl, blocks=(32, 48))
    assert abs(got[0] - want[0]) <= max(1e-6, 2e-6 * abs(want[0]))
    for a, b in zip(got[1], want[1]):
        assert a.dtype == (narrow if np.ndim(a) else np.float32)
        bound = 2e-5 if a.dtype == np.float32 else float(jnp.finfo(narrow).eps)
        assert np.abs(np.asarray(a, np.float64) - b).max() <= bound * np.abs(b).max()


SCORES = {
    "product": lambda row, col: row["z"] @ col["z"].T,
    "distance": lambda row, col: -jnp.sum((row["z"][:, None] - col["z"]) ** 2, axis=-1),
    "difference": lambda row, col: row["a"][:, None] - col["a"],
    "outer": lambda row, col: row["a"][:, None] * col["z"][:, 0] + 0.5,
    "prefix": lambda row, col: row["z"][:, :2] @ col["z"][:, :2].T,
    "cosine": lambda row, col: (
        (row["z"] / jnp.linalg.norm(row["z"], axis=1, keepdims=True))
        @ (col["z"] / jnp.linalg.norm(col["z"], axis=1, keepdims=True)).T
    ),
}
CURVES = {
    "as it is": lambda x: x,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "swish": jax.nn.silu,
    "square": lambda x: 0.1 * x * x,
    "clipped": lambda x: jnp.clip(x, -0.5, 0.5) + 0.1 * jnp.abs(x),
}
MASKS = {
    "none": lambda row, col, at: True,
    "label": lambda row, col, at: row["label"][:, None] != col["label"],
    "band": lambda row, col, at: jnp.abs(at.row[:, None] - at.col) < 9,
    "stripe": lambda row, col, at: (at.row[:, None] // 5 + at.col // 7) % 2 == 0,
}
OPS = ["sum", "logsumexp", "max", SoftmaxMean("b"), SoftmaxMean("z"), SoftmaxMean("a")]


WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which takes minutes


@settings(max_examples=4, deadline=None, phases=WITHOUT_SHRINKING)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(*(st.sampled_from(list(some)) for some in (SCORES, CURVES, MASKS))),
    st.sampled_from([0.0, -INF]),
    st.lists(
        st.tuples(st.integers(0, len(OPS) - 1), st.sampled_from(["row", "col", "all"])).filter(
            lambda drawn: drawn != (4, "all")
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.sampled_from(KERNELS),
)
def test_a_random_tile_has_the_values_and_gradients_of_the_dense_grid(
    assert_close, sizes, words, fill, drawn, impl
):
    score, curve, mask = words

    def random_tile(row, col, params, at):
        made = CURVES[curve](params * SCORES[score](row, col))
        there = MASKS[mask](row, col, at)
        return {"a": jnp.where(there, made, fill), "b": jnp.where(there, made, 0.0)}

    rng = np.random.default_rng(0)
    sides = [
        {"z": rng.normal(size=(n, 3)), "a": rng.normal(size=n), "label": rng.integers(0, 3, n)}
        for n in sizes
    ]
    # A sum with -inf in it has no gradient: sums are of the other term.
    asked = {f"{i} {per}": Reduce(OPS[i], "b" if OPS[i] == "sum" else "a", per) for i, per in drawn}

    def run(floats, **options):
        z, z_col, a, a_col, scale = floats
        rows, cols = {**sides[0], "z": z, "a": a}, {**sides[1], "z": z_col, "a": a_col}
        stats = pair_reduce(random_tile, rows, cols, asked, scale, **options)
        weights = np.random.default_rng(0)
        total = sum(
            jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0) * weights.normal(size=x.shape))
            for x in stats.values()
        )
        return total, stats

    def both(**options):
        step = jax.jit(jax.value_and_grad(partial(run, **options), has_aux=True))
        return jax.device_get(step(floats))

    with jax.enable_x64(True), interpreted():
        floats = [sides[0]["z"], sides[1]["z"], sides[0]["a"], sides[1]["a"], np.float64(0.9)]
        assert_close(both(impl=impl, blocks=(16, 16)), both(impl="reference"), 1e-12)


def test_the_same_bits_from_run_to_run(impl):
    trees = inputs(40, 70, np.float32)
    few = {name: EVERY[name] for name in ("logsumexp per row", "sum per col", "late per all")}
    a, b = (differentiated(trees, few, impl=impl, blocks=(16, 32)) for _ in "ab")
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("op", [TopK(2), Sample(2, jax.random.key(0))], ids=["top", "sample"])
def test_what_no_kernel_does_is_named(impl, op):
    z = jnp.ones((20, 4))
    with pytest.raises(NotImplementedError, match=rf"{impl}: .* uses \w+.*impl=\"xla\""):
        pair_reduce(products_of, z, z, {"a": Reduce(op, "score", "row")}, 1.0, impl=impl)

    def sorts(row, col, params, at):
        return {"score": jnp.sort(row @ col.T, axis=1)}

    with pytest.raises(NotImplementedError, match=rf"{impl}: .* uses sort, "):
        pair_reduce(sorts, z, z, {"a": Reduce("sum", "score", "row")}, impl=impl)


N, M, D = 1024, 512, 64
ARGUMENTS = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((N, D), (M, D), ())]


def test_products_are_as_many_as_those_of_xla(impl):
    """Four for a symmetric softmax, three for a sum over all pairs, fewer where a side is held."""

    def count(function):
        return products(function, *ARGUMENTS, unit=2.0 * N * M * D)

    options = {"impl": impl, "blocks": (128, 128)}
    softmax, pairs = partial(clip, **options), partial(siglip, **options)
    assert count(softmax) == 1 and count(jax.value_and_grad(softmax, (0, 1, 2))) == 4
    assert count(jax.grad(softmax, 0)) == 3 and count(jax.grad(softmax, 2)) == 2
    assert count(pairs) == 1 and count(jax.value_and_grad(pairs, (0, 1, 2))) == 3
    assert count(jax.value_and_grad(pairs, 1)) == 2


@pytest.mark.parametrize(
    "comm, n, m",
    [
        ("ring", 64, 96),
        pytest.param("ring", 96, 64, marks=pytest.mark.long),
        ("gather", 96, 64),
        pytest.param("hierarchical", 64, 96, marks=pytest.mark.long),
    ],
)
def test_on_a_mesh_it_is_as_on_one_device(assert_close, impl, comm, n, m):
    with jax.enable_x64(True):
        trees = inputs(n, m)
        few = {name: EVERY[name] for name in ("logsumexp per row", "sum per col", "max per all")}
        want = differentiated(trees, few, impl="reference")
        mesh = jax.make_mesh((2, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
        with jax.set_mesh(mesh):
            got = differentiated(trees, few, impl=impl, comm=comm, blocks=(16, 16))
    assert_close(got, want, 1e-12)
