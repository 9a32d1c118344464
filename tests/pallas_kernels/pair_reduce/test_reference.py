"""The dense reference against literal NumPy: values, gradients, empty rows, ties, errors."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import NamedSharding, PartitionSpec

from pallas_kernels.pair_reduce import Reduce, pair_reduce

OPS, PERS = ("sum", "logsumexp", "max"), ("row", "col", "all")
EVERY = {f"{op} per {per}": Reduce(op, "score", per) for op in OPS for per in PERS}
INF = math.inf


# One row, column or grid of scores, as a list of floats: its statistic and that one's gradient.


def literal_value(op, scores):
    if op == "sum":
        return sum(scores)
    top = max(scores, default=-INF)
    if op == "max" or top == -INF:
        return top
    return top + math.log(sum(math.exp(s - top) for s in scores))


def literal_gradient(op, scores, cotangent):
    if op == "sum":
        return [cotangent] * len(scores)
    top = max(scores, default=-INF)
    if top == -INF:
        return [0.0] * len(scores)
    if op == "max":
        return [cotangent if j == scores.index(top) else 0.0 for j in range(len(scores))]
    total = sum(math.exp(s - top) for s in scores)
    return [cotangent * math.exp(s - top) / total for s in scores]


def lines(grid, per):
    """The rows of the grid, its columns, or all of it as one."""
    return {"row": grid, "col": grid.T, "all": grid.reshape(1, -1)}[per]


def literal_statistic(reduce, grid):
    values = [literal_value(reduce.op, line.tolist()) for line in lines(grid, reduce.per)]
    return np.array(values).reshape(() if reduce.per == "all" else -1)


def look_up(row, col, params, at):
    """Row i carries its own line of the grid, and `at` says where in it a column lies."""
    return {"score": jnp.take(row, at.col, axis=1)}


def from_grid(grid):
    return pair_reduce(look_up, grid, jnp.zeros(grid.shape[1]), EVERY)


@jax.jit
def values(grid):
    return from_grid(grid)


@jax.jit
def gradient(grid, cotangents):
    return jax.vjp(from_grid, grid)[1](cotangents)[0]


# Small integers make ties, a thousand overflows an unshifted exp, -inf masks.
score = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 1.5, 1000.0, -1000.0, -INF, -INF])
shape = st.tuples(st.sampled_from([0, 1, 4]), st.sampled_from([0, 1, 3]))
grids = shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=score))


@settings(max_examples=150, deadline=None)
@given(grids)
def test_every_statistic_is_its_formula(grid):
    with jax.enable_x64(True):
        got = values(grid)
    for name, reduce in EVERY.items():
        want = literal_statistic(reduce, grid)
        assert got[name].shape == want.shape and got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], want, rtol=1e-12, atol=1e-12, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(grids, st.sampled_from(list(EVERY)), st.sampled_from([INF, -INF, math.nan, 1.0]), st.data())
def test_every_gradient_is_its_formula_and_zero_at_what_is_empty(grid, name, at_empty, data):
    op, _, per = EVERY[name]
    cotangents = data.draw(
        hnp.arrays(np.float64, len(lines(grid, per)), elements=st.floats(-3, 3, width=16))
    )
    empty = np.array([not np.any(line > -INF) for line in lines(grid, per)], bool)
    if op != "sum":
        cotangents = np.where(empty, at_empty, cotangents)
    want = [literal_gradient(op, x.tolist(), c) for x, c in zip(lines(grid, per), cotangents)]
    want = np.array(want).reshape(lines(grid, per).shape)
    want = {"row": want, "col": want.T, "all": want.reshape(grid.shape)}[per]
    n, m = grid.shape
    given = {k: np.zeros({"row": n, "col": m, "all": ()}[r.per]) for k, r in EVERY.items()}
    given[name] = cotangents.reshape(given[name].shape)
    with jax.enable_x64(True):
        got = gradient(grid, given)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# A tile as objectives write them: products, labels, a mask by position, a parameter.


def tile(row, col, params, at):
    same = row["label"][:, None] == col["label"]
    itself = at.row[:, None] == at.col
    score = params["scale"] * (row["z"] @ col["z"].T) + col["bias"]
    return {"score": jnp.where(same & ~itself, score, -INF), "cosine": jnp.sin(score)}


TILED = {
    **{name: Reduce(op, "score", per) for name, (op, _, per) in EVERY.items() if op != "sum"},
    **{f"sum per {per}": Reduce("sum", "cosine", per) for per in PERS},
}


def literal_tiled(rows, cols, params):
    n, m = len(rows["z"]), len(cols["z"])
    score, cosine = np.full((n, m), -INF), np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            s = params["scale"] * np.dot(rows["z"][i], cols["z"][j]) + cols["bias"][j]
            cosine[i, j] = math.sin(s)
            if rows["label"][i] == cols["label"][j] and i != j:
                score[i, j] = s
    terms = {"score": score, "cosine": cosine}
    return {name: literal_statistic(reduce, terms[reduce.term]) for name, reduce in TILED.items()}


def tiled_inputs(n, m, seed=0):
    """Row 0 shares its label with no column."""
    rng = np.random.default_rng(seed)
    rows = {"z": rng.normal(size=(n, 5)), "label": rng.integers(0, 3, n)}
    cols = {
        "z": rng.normal(size=(m, 5)),
        "label": rng.integers(0, 3, m),
        "bias": rng.normal(size=m),
    }
    rows["label"][0] = 7
    return rows, cols, {"scale": np.float64(0.7)}


@pytest.mark.parametrize("n, m", [(5, 7), (7, 5), (6, 6)])
def test_a_tile_of_rows_columns_params_and_positions(n, m):
    rows, cols, params = tiled_inputs(n, m)
    with jax.enable_x64(True):
        got = jax.jit(lambda *args: pair_reduce(tile, *args[:2], TILED, args[2]))(
            rows, cols, params
        )
    want = literal_tiled(rows, cols, params)
    assert want["max per row"][0] == want["logsumexp per row"][0] == -INF
    for name in TILED:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-12, err_msg=name)


def finite_sum(stats, weights):
    """A scalar of all statistics that leaves out the empty ones: weighted and squared."""
    return sum(
        (weights[name] * np.where(np.isfinite(stats[name]), stats[name], 0) ** 2).sum()
        for name in TILED
    )


def test_gradients_reach_every_float_leaf():
    rows, cols, params = tiled_inputs(5, 7)
    want = literal_tiled(rows, cols, params)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=np.shape(want[name])) for name in TILED}

    def loss(z, other_z, bias, scale):
        stats = pair_reduce(
            tile, {**rows, "z": z}, {**cols, "z": other_z, "bias": bias}, TILED, {"scale": scale}
        )
        finite = {k: jnp.where(jnp.isfinite(s), s, 0.0) for k, s in stats.items()}
        return sum((weights[k] * finite[k] ** 2).sum() for k in TILED)

    def literal_loss(z, other_z, bias, scale):
        stats = literal_tiled(
            {**rows, "z": z}, {**cols, "z": other_z, "bias": bias}, {"scale": scale}
        )
        return finite_sum(stats, weights)

    leaves = [rows["z"], cols["z"], cols["bias"], params["scale"]]
    with jax.enable_x64(True):
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*leaves)
    for k, got in enumerate(gradients):
        want = np.zeros(np.shape(leaves[k]))
        for index in np.ndindex(want.shape):
            step = np.zeros(want.shape)
            step[index] = 1e-6
            ahead = literal_loss(*leaves[:k], leaves[k] + step, *leaves[k + 1 :])
            behind = literal_loss(*leaves[:k], leaves[k] - step, *leaves[k + 1 :])
            want[index] = (ahead - behind) / 2e-6
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("cotangent", [INF, math.nan])
@pytest.mark.parametrize("n, m, per", [(3, 0, "row"), (0, 3, "col"), (0, 0, "all"), (3, 0, "all")])
def test_nothing_to_reduce_gives_no_gradient_to_anything(n, m, per, cotangent):
    def scores(row, col, params, at):
        return {"score": params * (row @ col.T)}

    @jax.jit
    def run(*leaves):
        reductions = {op: Reduce(op, "score", per) for op in OPS}
        stats, vjp = jax.vjp(lambda *x: pair_reduce(scores, *x[:2], reductions, x[2]), *leaves)
        return stats, vjp(jax.tree.map(lambda s: jnp.full_like(s, cotangent), stats))

    stats, gradients = run(np.ones((n, 2)), np.ones((m, 2)), np.float32(2))
    assert np.all(stats["sum"] == 0)
    assert np.all(stats["logsumexp"] == -INF) and np.all(stats["max"] == -INF)
    assert not any(np.any(leaf) for leaf in gradients)


def test_positions_count_from_zero_on_both_sides():
    seen = []

    def positions(row, col, params, at):
        seen.append((str(at.row.dtype), at.row.shape, str(at.col.dtype), at.col.shape))
        return {"score": 10.0 * at.row[:, None] + at.col}

    stats = jax.jit(lambda x, y: pair_reduce(positions, x, y, EVERY))(jnp.zeros(3), jnp.zeros(2))
    np.testing.assert_array_equal(stats["sum per row"], [0 + 1, 10 + 11, 20 + 21])
    np.testing.assert_array_equal(stats["sum per col"], [0 + 10 + 20, 1 + 11 + 21])
    assert set(seen) == {("int32", (3,), "int32", (2,))}


@pytest.mark.parametrize("narrow", [jnp.bfloat16, jnp.float16])
def test_half_precision_terms_have_float32_statistics(narrow):
    z = np.random.default_rng(0).normal(size=(4, 301)).astype(narrow)
    stats = values(z)
    for name, reduce in EVERY.items():
        assert stats[name].dtype == jnp.float32
        want = literal_statistic(reduce, z.astype(np.float64))
        np.testing.assert_allclose(stats[name], want, rtol=2e-6, atol=2e-5, err_msg=name)
    assert gradient(z, stats).dtype == narrow


def test_eight_devices_agree_with_one():
    rows, cols, params = tiled_inputs(24, 16)

    def loss(z, other_z, scale):
        stats = pair_reduce(tile, {**rows, "z": z}, {**cols, "z": other_z}, TILED, {"scale": scale})
        return sum(jnp.where(jnp.isfinite(s), s, 0.0).sum() for s in stats.values()), stats

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.enable_x64(True):
        one = run(rows["z"], cols["z"], params["scale"])
        with jax.set_mesh(mesh):
            split = NamedSharding(mesh, PartitionSpec("data"))
            sides = jax.device_put((rows["z"], cols["z"]), split)
            eight = run(*sides, params["scale"])
            assert "all-reduce" in run.lower(*sides, params["scale"]).compile().as_text()
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(one)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


X, Y = np.ones((3, 2), np.float32), np.ones((4, 2), np.float32)


def product(row, col, params, at):
    return {"score": row @ col.T, "hit": at.row[:, None] == at.col, "row": row[:, 0]}


def reduce_of(**changed):
    return {"s": Reduce(**{"op": "sum", "term": "score", "per": "row", **changed})}


@pytest.mark.parametrize(
    "changed, error, says",
    [
        ({"rows": {"z": X, "w": Y}}, ValueError, r"rows: .* differ: .*'w'.*4.*'z'.*3"),
        ({"cols": {"z": X, "w": Y}}, ValueError, r"cols: .* differ: .*'w'.*4.*'z'.*3"),
        ({"rows": {"z": X, "t": 0.5}}, ValueError, r"rows\['t'\]: a scalar; pass it in params"),
        ({"cols": [X, np.float32(1)]}, ValueError, r"cols\[1\]: a scalar; pass it in params"),
        ({"rows": {}}, ValueError, "rows: has no array"),
        ({"cols": None}, ValueError, "cols: has no array"),
        ({"reductions": reduce_of(op="mean")}, ValueError, r"\['s'\]: unknown op 'mean'.*'sum'"),
        ({"reductions": reduce_of(per="pair")}, ValueError, r"\['s'\]: unknown per 'pair'.*'all'"),
        ({"reductions": reduce_of(term="sc")}, ValueError, r"\['s'\]: .* no 'sc', only .*'score'"),
        ({"reductions": reduce_of(term="hit")}, TypeError, "tile: 'hit' is bool, not a float"),
        ({"reductions": reduce_of(term="row")}, ValueError, r"'row' has shape \(3,\).*\(3, 4\)"),
        ({"impl": "pallas"}, ValueError, "impl: unknown implementation 'pallas'.*'reference'"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_runs(changed, error, says):
    arguments = {"tile": product, "rows": X, "cols": Y, "reductions": reduce_of(), **changed}
    with pytest.raises(error, match=says):
        jax.eval_shape(lambda: pair_reduce(**arguments))


def scaled(row, col, params, at, *, scale):
    return {"score": scale * (row @ col.T)}


def by_closure(scale):
    return lambda row, col, params, at: {"score": scale["t"] * (row @ col.T)}


def by_default(scale):
    return lambda row, col, params, at, scale=scale: {"score": scale["t"] * (row @ col.T)}


def by_partial(scale):
    return partial(scaled, scale=scale["t"])


def by_compiled_closure(scale):
    return jax.jit(by_closure(scale))


CAPTURES = [by_closure, by_default, by_partial, by_compiled_closure]
TRACES = {
    "jit": lambda f: jax.jit(f)(2.0),
    "grad": lambda f: jax.grad(f)(2.0),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2)),
    "grad in jit": lambda f: jax.jit(jax.grad(f))(2.0),
    "scan": lambda f: jax.lax.scan(lambda c, _: (c, f(c)), 2.0, length=2),
}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("trace", TRACES)
def test_a_captured_traced_array_is_refused_by_name(capture, trace):
    def loss(t):
        return pair_reduce(capture({"t": t}), X, Y, reduce_of())["s"].sum()

    with pytest.raises(ValueError, match=r"tile: captures 'scale', a traced float32\[\]; .*params"):
        TRACES[trace](loss)


def test_a_captured_traced_array_that_hides_is_refused_too():
    def loss(t):
        inner = by_closure({"t": t})
        return pair_reduce(lambda *args: inner(*args), X, Y, reduce_of())["s"].sum()

    with pytest.raises(ValueError, match=r"tile: captures a traced float32\[\]; .*params"):
        jax.jit(loss)(2.0)


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_captured_constant_is_welcome(capture):
    constant = {"t": jnp.float32(3)}
    stats = jax.jit(lambda x: pair_reduce(capture(constant), x, Y, reduce_of()))(X)
    np.testing.assert_array_equal(stats["s"], np.full(3, 3.0 * 2 * 4))
