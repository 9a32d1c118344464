"""The tiled engine on one device against the dense reference: every op, per and kind of leaf."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.pair_reduce import Reduce, Sample, SoftmaxMean, TopK, pair_reduce, pair_sum

INF = math.inf
PERS = ("row", "col", "all")
KEY = jax.random.key(5)


def tile(row, col, params, at):
    """Products, an elementwise curve, a mask by label, by flag and by position."""
    score = params["scale"]["t"] * (row["z"] @ col["z"].T) + row["bias"][:, None]
    other = (row["label"][:, None] != col["label"]) & col["seen"]
    itself = at.row[:, None] == at.col
    return {
        "score": jnp.where(other & ~itself, score, -INF),
        "curve": jnp.tanh(score - params["shift"]) * col["bias"],
        "unused": row["bias"] > 0,
    }


def every(carry=("z", "teacher.z", "label")):
    """Each op per row, column and all (of near relatives some), by a name that says so."""
    ops = {
        "sum": ("sum", "curve"),
        "logsumexp": ("logsumexp", "score"),
        "max": ("max", "score"),
        "mean of a term": (SoftmaxMean("curve"), "score"),
        "mean of itself": (SoftmaxMean("score"), "score"),
        "mean of a leaf": (SoftmaxMean("bias"), "score"),
        "mean of a nested leaf": (SoftmaxMean("teacher.z"), "score"),
        "top": (TopK(3, carry), "score"),
        "more than there are": (TopK(15), "score"),
        "sample": (Sample(2, KEY, carry), "score"),
    }
    once = {
        "mean of a leaf": ("col",),
        "mean of a nested leaf": ("row", "col"),
        "mean of itself": ("row",),
        "more than there are": ("row",),
    }
    return {
        f"{name} per {per}": Reduce(op, term, per)
        for name, (op, term) in ops.items()
        for per in once.get(name, PERS)
    }


EVERY = every()
SOME = {
    f"{name} per {per}": EVERY[f"{name} per {per}"]
    for name, per in [
        ("sum", "col"),
        ("logsumexp", "all"),
        ("max", "row"),
        ("mean of a term", "row"),
        ("mean of a nested leaf", "col"),
        ("top", "row"),
        ("sample", "col"),
    ]
}


def side(rng, n, empty=()):
    label = rng.integers(0, 4, n)
    return {
        "z": rng.normal(size=(n, 5)),
        "bias": rng.normal(size=n),
        "teacher": {"z": rng.normal(size=(n, 2, 3))},
        "label": label,
        "seen": ~np.isin(np.arange(n), empty),
    }


def inputs(n, m, empty=()):
    rng = np.random.default_rng(n * 100 + m)
    params = {"scale": {"t": np.float64(0.7)}, "shift": np.float64(0.1)}
    return side(rng, n), side(rng, m, empty), params


def floats(tree):
    """The float leaves of a tree, and how to put them back."""
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, x in enumerate(leaves) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]

    def put(new):
        whole = list(leaves)
        for i, x in zip(where, new):
            whole[i] = x
        return structure.unflatten(whole)

    return [jnp.asarray(leaves[i]) for i in where], put


def differentiated(trees, reductions, **options):
    """A function of the cotangent at empty lines: statistics, and gradients under random ones."""
    leaves, put = floats(trees)

    def run(leaves):
        rows, cols, params = put(leaves)
        stats = pair_reduce(tile, rows, cols, reductions, params, **options)
        return floats(stats)[0], stats

    @jax.jit
    def both(at_empty):
        out, pull, stats = jax.vjp(run, leaves, has_aux=True)
        rng = np.random.default_rng(0)
        given = [
            jnp.where(jnp.isneginf(x), at_empty, rng.normal(size=x.shape).astype(x.dtype))
            for x in out
        ]
        return stats, pull(given)[0]

    return both


@pytest.mark.parametrize(
    "n, m, blocks, groups, reductions",
    [
        (7, 11, (3, 4), None, EVERY),
        (6, 10, None, None, SOME),
        (12, 8, (5, 3), 4, SOME),
    ],
)
def test_every_statistic_and_gradient_is_that_of_the_dense_grid(
    assert_close, n, m, blocks, groups, reductions
):
    with jax.enable_x64(True):
        trees = inputs(n, m, empty=[2, 3])
        run = partial(differentiated, trees, reductions, groups=groups)
        got, want = run(impl="xla", blocks=blocks)(0.0), run(impl="reference")(0.0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got[1]))
    assert all(np.any(x) for x in jax.tree.leaves(want[1]))
    assert_close(got, want, 1e-12)


def test_an_empty_line_has_no_gradient_whatever_its_cotangent(assert_close):
    """Columns 3 to 8, whole tiles of them, and rows 0 to 2 pair with nothing."""
    with jax.enable_x64(True):
        rows, cols, params = inputs(9, 12, empty=range(3, 9))
        rows["label"][:3] = cols["label"][:] = 7
        reductions = {
            name: reduce
            for name, reduce in every(()).items()
            if reduce.per != "all" and not name.startswith(("sum", "more", "mean of a leaf"))
        }
        run = partial(differentiated, (rows, cols, params), reductions)
        tiled, want = run(impl="xla", blocks=(3, 3)), run(impl="reference")(0.0)
        for cotangent in (math.nan, INF):
            assert_close(tiled(cotangent), want, 1e-12)
    stats = want[0]
    assert np.isneginf(stats["logsumexp per row"][:3]).all()
    assert np.isneginf(stats["max per col"][3:9]).all()
    assert not np.any(stats["mean of a nested leaf per row"][:3])
    assert np.all(stats["top per row"].index[:3] == -1)


def test_a_nan_shows_and_zeros_of_either_sign_are_equal():
    def look_up(row, col, params, at):
        return {"score": row[:, None] * col}

    found = {"max": Reduce("max", "score", "row"), "top": Reduce(TopK(3), "score", "row")}
    for impl, blocks in [("reference", None), ("xla", (1, 5)), ("xla", (1, 2)), ("xla", (1, 1))]:
        run = partial(pair_reduce, look_up, jnp.ones(1), impl=impl, blocks=blocks)
        stats = run(jnp.array([1.0, 2.0, math.nan, 5.0, -INF]), found)
        assert np.isnan(stats["max"][0])
        np.testing.assert_array_equal(stats["top"].index, [[2, 3, 1]])
        np.testing.assert_array_equal(stats["top"].value, [[math.nan, 5, 2]])
        stats = run(jnp.array([-0.0, 0.0, -0.0, 0.0, -1.0]), found)
        np.testing.assert_array_equal(stats["top"].index, [[0, 1, 2]])


def test_of_equal_entries_the_first_wins_across_blocks():
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 3, (7, 9)).astype(np.float32)

    def look_up(row, col, params, at):
        return {"score": jnp.take(row, at.col, axis=1)}

    def run(grid):
        reductions = {per: Reduce(TopK(4), "score", per) for per in PERS}
        reductions |= {f"max {per}": Reduce("max", "score", per) for per in PERS}
        return pair_reduce(look_up, grid, jnp.zeros(9), reductions, blocks=(2, 3))

    stats = jax.jit(run)(grid)
    best = np.argsort(-grid, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(stats["row"].index, best)
    best = np.argsort(-grid.T, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(stats["col"].index, best)
    best = np.argsort(-grid.ravel(), kind="stable")[:4]
    np.testing.assert_array_equal(stats["all"].index, np.stack(np.divmod(best, 9), axis=-1))
    for per, at in [("row", grid.argmax(axis=1)), ("col", grid.argmax(axis=0))]:
        d_grid = jax.jit(jax.grad(lambda g, per=per: run(g)[f"max {per}"].sum()))(grid)
        want = np.zeros_like(grid)
        want[(np.arange(7), at) if per == "row" else (at, np.arange(9))] = 1
        np.testing.assert_array_equal(d_grid, want)


def products(row, col, params, at):
    return {"score": params * (row @ col.T)}


def clip(x, y, scale, **options):
    stats = pair_reduce(
        products,
        x,
        y,
        {
            "row": Reduce("logsumexp", "score", "row"),
            "col": Reduce("logsumexp", "score", "col"),
            "mean": Reduce(SoftmaxMean("score"), "score", "row"),
        },
        scale,
        **options,
    )
    n = min(len(x), len(y))
    return (
        stats["row"].mean()
        + stats["col"].mean()
        - scale * (x[:n] * y[:n]).sum(axis=1).mean()
        + 0.01 * stats["mean"].mean()
    )


def unit(rng, n, d=24):
    z = rng.normal(size=(n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def errors(got, want):
    """Of each leaf, the largest error relative to its largest entry."""
    return [
        np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want))
    ]


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_in_float32_errors_are_those_of_rounding(scale):
    rng = np.random.default_rng(0)
    x, y = unit(rng, 301).astype(np.float32), unit(rng, 211).astype(np.float32)

    def run(dtype, **options):
        step = jax.jit(jax.value_and_grad(partial(clip, **options), argnums=(0, 1, 2)))
        return step(x.astype(dtype), y.astype(dtype), np.asarray(scale, dtype))

    with jax.enable_x64(True):
        want = jax.device_get(run(np.float64, impl="reference"))
    dense = run(np.float32, impl="reference")
    got = run(np.float32, impl="xla", blocks=(64, 50))
    assert abs(got[0] - want[0]) <= max(1e-6, 4 * abs(dense[0] - want[0]), 2e-6 * abs(want[0]))
    for error, of_dense in zip(errors(got[1], want[1]), errors(dense[1], want[1])):
        assert error <= min(2e-5, max(4 * of_dense, 2e-7))


@pytest.mark.parametrize("narrow", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened_before_anything_is_added_up(narrow):
    """Gradients of 4,096 columns, in blocks of 64: added up in half they would lose everything."""
    rng = np.random.default_rng(0)
    x, y = unit(rng, 3).astype(narrow), unit(rng, 4096).astype(narrow)
    scale = np.asarray(8.0, narrow)

    def loss(x, y, scale):
        weighted = {
            "sum": Reduce("sum", "score", "row"),
            "lse": Reduce("logsumexp", "score", "row"),
        }
        stats = pair_reduce(products, x, y, weighted, scale, blocks=(2, 64))
        assert all(s.dtype == jnp.promote_types(x.dtype, jnp.float32) for s in stats.values())
        return stats["lse"].sum() + stats["sum"].sum() / 4096

    got = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(x, y, scale)
    assert all(g.dtype == narrow for g in got[1])
    with jax.enable_x64(True):
        wide = (z.astype(np.float64) for z in (x, y, scale))
        want = jax.device_get(jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*wide))
    half = float(jnp.finfo(narrow).eps)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    for a, b in zip(got[1], want[1]):
        a = np.asarray(a, np.float64)
        np.testing.assert_allclose(a, b, rtol=half, atol=2 * float(jnp.finfo(narrow).tiny))


def test_precision_reaches_the_products_of_both_passes():
    x = jnp.ones((4, 3), jnp.bfloat16)

    def program(precision):
        loss = partial(clip, blocks=(2, 2), precision=precision)
        return str(jax.make_jaxpr(jax.grad(loss))(x, x, 1.0))

    assert "BF16_BF16_F32" not in program(None)
    assert program("BF16_BF16_F32").count("BF16_BF16_F32") >= 3


def test_calls_compose(assert_close):
    """A queue joined by logaddexp; a statistic of one call as the leaf of the next."""

    def negatives(row, col, params, at):
        score = params * (row["z"] @ col["z"].T)
        same = row["label"][:, None] == col["label"]
        return {"negative": jnp.where(same, -INF, score)}

    def positives(row, col, params, at):
        score = params * (row["z"] @ col["z"].T)
        same = row["label"][:, None] == col["label"]
        return {"loss": jnp.where(same, jax.nn.softplus(row["lse"][:, None] - score), 0.0)}

    def loss(z, other, queue, scale, label, other_label, queue_label, **options):
        rows, cols = {"z": z, "label": label}, {"z": other, "label": other_label}
        lse = {"lse": Reduce("logsumexp", "negative", "row")}
        run = partial(pair_reduce, negatives, rows, reductions=lse, params=scale, **options)
        old = run(cols={"z": queue, "label": queue_label})
        joined = jnp.logaddexp(run(cols=cols)["lse"], old["lse"])
        total, by_row = pair_sum(positives, {**rows, "lse": joined}, cols, {"loss": 1.0}, scale)
        return total + 0 * by_row.sum()

    rng = np.random.default_rng(0)
    sizes = (9, 7, 13)
    with jax.enable_x64(True):
        z = [jnp.asarray(unit(rng, n, 5)) for n in sizes]
        labels = [rng.integers(0, 3, n) for n in sizes]
        run = {
            impl: jax.jit(jax.value_and_grad(partial(loss, **options), argnums=(0, 1, 2, 3)))(
                *z, 2.0, *labels
            )
            for impl, options in {
                "xla": {"impl": "xla", "blocks": (4, 3)},
                "reference": {"impl": "reference"},
            }.items()
        }
    assert_close(run["xla"], run["reference"], 1e-12)


@pytest.fixture
def few():
    rng = np.random.default_rng(3)
    return jnp.asarray(unit(rng, 5, 3)), jnp.asarray(unit(rng, 4, 3))


def test_it_is_the_same_without_jit_in_a_loop_and_rematerialised(assert_close, few):
    def loss(x, y, scale):
        asked = {per: Reduce("logsumexp", "score", per) for per in ("row", "col")}
        stats = pair_reduce(products, x, y, asked, scale, blocks=(2, 3))
        return stats["row"].sum() + stats["col"].sum()

    want = jax.jit(jax.value_and_grad(loss))(*few, 2.0)

    def looped(x):
        return jax.lax.scan(lambda sum, y: (sum + loss(x, y, 2.0), None), 0.0, few[1][None])[0]

    assert_close(jax.value_and_grad(loss)(*few, 2.0), want, 1e-6)
    assert_close(jax.jit(jax.value_and_grad(looped))(few[0]), want, 1e-6)
    assert_close(jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(*few, 2.0), want, 1e-6)


def test_a_loop_that_differentiates_its_own_carry(assert_close, few):
    """jax traces the forward half several times here, before it knows what is differentiated."""

    def looped(x, y, **options):
        def step(carry, _):
            x, y = carry
            return (x * clip(x, y, 1.0, **options), y), None

        return jax.lax.scan(step, (x, y), length=2)[0][0].sum()

    with jax.enable_x64(True):
        few = [jnp.asarray(z, jnp.float64) for z in few]
        got = jax.jit(jax.grad(partial(looped, blocks=(2, 3))))(*few)
        assert_close(got, jax.jit(jax.grad(partial(looped, impl="reference")))(*few), 1e-12)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_compiled_caller_is_differentiated_in_one_argument_and_then_in_another(
    assert_close, few, one_pass
):
    @jax.jit
    def loss(x, y):
        if one_pass:
            return pair_sum(products, x, y, {"score": 1.0}, jnp.float32(2))[0]
        return clip(x, y, 2.0, blocks=(2, 2))

    want = jax.grad(loss, (0, 1))(*few)
    pull_x = jax.vjp(lambda x: loss(x, few[1]), few[0])[1]
    pull_y = jax.vjp(lambda y: loss(few[0], y), few[1])[1]
    assert_close((*pull_x(1.0), *pull_y(1.0)), want, 1e-6)


def test_a_leaf_that_is_there_twice_gets_its_gradient_in_its_own_place(assert_close, few):
    def own(row, col, params, at):
        return {"score": row @ col["z"].T}

    def loss(z, z_locked, v, v_locked, **options):
        hold = jax.lax.stop_gradient
        cols = {
            "v": hold(v) if v_locked else v,
            "z": hold(z) if z_locked else z,
        }
        mean = {"mean": Reduce(SoftmaxMean("v"), "score", "row")}
        return (pair_reduce(own, few[0], cols, mean, **options)["mean"] ** 2).sum()

    for z_locked, v_locked in [(False, True), (True, False)]:
        run = [
            jax.grad(lambda z, o=o, a=z_locked, b=v_locked: loss(z, a, z, b, **o))(few[1])
            for o in ({"impl": "xla"}, {"impl": "xla", "blocks": (2, 2)}, {"impl": "reference"})
        ]
        assert_close(run[:2], [run[2]] * 2, 1e-6)


def test_pair_sum_is_the_sum_in_one_pass(assert_close, few):
    def two(row, col, params, at):
        score = row @ col.T
        hit = at.row[:, None] == at.col
        return {"a": jax.nn.softplus(score), "b": jnp.where(hit, score, 0.0), "unused": hit}

    def loss(x, y, **options):
        total, by_row = pair_sum(two, x, y, {"a": 0.5, "b": -2.0}, **options)
        return 3 * total, by_row

    def run(**options):
        return jax.value_and_grad(partial(loss, **options), argnums=(0, 1), has_aux=True)(*few)

    assert_close(run(blocks=(2, 3)), run(impl="reference"), 2e-6)
    assert_close(loss(*few, blocks=(2, 3)), run(impl="reference")[0], 2e-6)
    unread = jax.grad(lambda x: loss(x, few[1], blocks=(2, 3))[1].sum())(few[0])
    np.testing.assert_array_equal(unread, 0)


def test_draws_are_in_proportion_without_replacement_and_follow_the_key():
    score = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1, 0.0]))

    def constant(row, col, params, at):
        return {"score": row[:, None] + col}

    @jax.jit
    def draw(key):
        once = {"draw": Reduce(Sample(3, key), "score", "row")}
        return pair_reduce(constant, jnp.zeros(20_000), score, once, blocks=(512, 5))["draw"].index

    first, second = (np.asarray(draw(jax.random.key(seed))) for seed in (0, 1))
    share = np.bincount(first[:, 0], minlength=5) / len(first)
    np.testing.assert_allclose(share, np.exp(score), atol=4 * math.sqrt(0.25 / len(first)))
    assert all(len(set(row)) == 3 for row in first[:100].tolist())
    assert 0.2 < np.mean(first[:, 0] == second[:, 0]) < 0.5  # chance: Σ p² = 0.345
    assert 0.2 < np.mean(first[1:, 0] == first[:-1, 0]) < 0.5
