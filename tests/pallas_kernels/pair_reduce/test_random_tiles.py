"""Tiles put together at random: the tiled engine and the dense reference agree in float64."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.pair_reduce import Reduce, Sample, SoftmaxMean, TopK, pair_reduce

SCORES = {
    "product": lambda row, col: row["z"] @ col["z"].T,
    "distance": lambda row, col: -jnp.sum((row["z"][:, None] - col["z"]) ** 2, axis=-1),
    "difference": lambda row, col: row["a"][:, None] - col["a"],
    "outer": lambda row, col: row["a"][:, None] * col["z"][:, 0] + 0.5,
}
CURVES = {
    "as it is": lambda x: x,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "exp": lambda x: jnp.exp(jnp.tanh(x)),
    "square": lambda x: 0.1 * x * x,
}
MASKS = {
    "none": lambda row, col, at: True,
    "label": lambda row, col, at: row["label"][:, None] != col["label"],
    "itself": lambda row, col, at: at.row[:, None] != at.col,
    "band": lambda row, col, at: jnp.abs(at.row[:, None] - at.col) < 9,
    "stripe": lambda row, col, at: (at.row[:, None] // 5 + at.col // 7) % 2 == 0,
}
OPS = ["sum", "logsumexp", "max", SoftmaxMean("b"), SoftmaxMean("z"), TopK(3, ("a",))]
OPS += [Sample(2, jax.random.key(1), ("z",)), SoftmaxMean("a")]

names = st.fixed_dictionaries(
    {"score": st.sampled_from(list(SCORES)), "curve": st.sampled_from(list(CURVES))}
)
term = st.tuples(names, st.sampled_from(list(MASKS)), st.sampled_from([0.0, -math.inf]))
reductions = st.lists(
    st.tuples(st.integers(0, len(OPS) - 1), st.sampled_from(["row", "col", "all"])).filter(
        lambda drawn: drawn != (4, "all")
    ),
    min_size=2,
    max_size=4,
    unique=True,
)


@st.composite
def problems(draw):
    groups = draw(st.sampled_from([None, None, 1, 2, 3]))
    g = groups or 1
    n, m = (g * draw(st.integers(1, 40 // g)) for _ in "nm")
    blocks = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    return n, m, blocks, groups


def compose(a, b):
    """A tile of two terms; the second may be used as a value, so it is never -inf."""

    def made(what, mask, fill, row, col, params, at):
        score = params * SCORES[what["score"]](row, col)
        return jnp.where(MASKS[mask](row, col, at), CURVES[what["curve"]](score), fill)

    def tile(row, col, params, at):
        return {
            "a": made(*a, row, col, params, at),
            "b": made(*b[:2], 0.0, row, col, params, at),
        }

    return tile


def side(rng, n):
    return {"z": rng.normal(size=(n, 3)), "a": rng.normal(size=n), "label": rng.integers(0, 3, n)}


@settings(max_examples=5, deadline=None)
@given(problems(), term, term, reductions, st.integers(0, 99))
def test_a_random_tile_has_the_values_and_gradients_of_the_dense_grid(problem, a, b, drawn, seed):
    n, m, blocks, groups = problem
    rng = np.random.default_rng(seed)
    rows, cols = side(rng, n), side(rng, m)
    tile = compose(a, b)
    # A sum with -inf in it has no gradient: sums are of the other term.
    asked = {f"{i} {per}": Reduce(OPS[i], "b" if OPS[i] == "sum" else "a", per) for i, per in drawn}

    def run(floats, **options):
        z, z_col, a, a_col, scale = floats
        stats = pair_reduce(
            tile,
            {**rows, "z": z, "a": a},
            {**cols, "z": z_col, "a": a_col},
            asked,
            scale,
            groups=groups,
            **options,
        )
        finite = [x for x in jax.tree.leaves(stats) if jnp.issubdtype(x.dtype, jnp.floating)]
        weights = np.random.default_rng(0)
        total = sum(
            jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0) * weights.normal(size=x.shape))
            for x in finite
        )
        return total, stats

    def both(**options):
        step = jax.value_and_grad(partial(run, **options), has_aux=True)
        return jax.device_get(jax.jit(step)(floats))

    with jax.enable_x64(True):
        floats = [rows["z"], cols["z"], rows["a"], cols["a"], np.float64(0.9)]
        got, want = both(impl="xla", blocks=blocks), both(impl="reference")
    for (path, x), y in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want)):
        finite = np.isfinite(y)
        np.testing.assert_array_equal(x[~finite], y[~finite], err_msg=str(path))
        scale = max(1.0, np.abs(y[finite]).max(initial=0))
        np.testing.assert_allclose(
            x[finite], y[finite], rtol=0, atol=1e-12 * scale, err_msg=str(path)
        )
