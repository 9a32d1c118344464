"""The threshold that k of many scores pass softly, for every row.

    t_i:   Σ_c σ(s_ic + t_i) = k

Source: the soft top-k operator of Gupta et al. 2024 (P043). The sum rises with t, so there is one
t. By the implicit function theorem ∂t_i / ∂s_ic = −σ'_ic / Σ_c σ'_ic: the threshold goes against
the mean of the scores, each weighed by the slope at which it passes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce import At, Reduce, SoftmaxMean, pair_reduce
from pallas_kernels.pair_reduce.types import Tile

SUMS = {name: Reduce("sum", name, "row") for name in ("passing", "failing", "slope")}
PASSES = 16  # of the search, each one product


def threshold(
    scores: Tile, rows: Any, cols: Any, params: Any, k: jax.Array, count: jax.Array, bound: Any
) -> jax.Array:
    """t_i of every row, (n,), differentiable in what the scores are made of.

    It is sought without a gradient, by Newton steps on the log odds of passing, which are almost
    straight in t, inside a bracket that is halved where they leave it. Costs PASSES products, and 4
    for the gradient.

    Args:
        scores: a tile of `pair_reduce` that makes the `score` of every pair, -inf where the column
            is not there.
        rows, cols, params: what that tile reads.
        k: how many should pass, more than 0 and less than `count`.
        count: how many scores a row has, 1 or more.
        bound: no score is farther from 0.
    """
    tile = partial(_tile, scores=scores)
    held = jax.lax.stop_gradient((rows, cols, params))
    goal = jnp.log(k) - jnp.log(count - k)  # the log odds; and t, were all scores 0
    bound = jax.lax.stop_gradient(bound)

    def step(_: Any, found: Any) -> Any:
        t, low, high = found
        sums = pair_reduce(tile, {"of": held[0], "t": t}, held[1], SUMS, held[2])
        tiny = jnp.finfo(t.dtype).tiny
        passing, failing = (jnp.maximum(sums[name], tiny) for name in ("passing", "failing"))
        missing = goal - (jnp.log(passing) - jnp.log(failing))
        slope = sums["slope"] / passing + sums["slope"] / failing
        newton = t + missing / jnp.maximum(slope, tiny)
        low, high = jnp.where(missing > 0, t, low), jnp.where(missing > 0, high, t)
        inside = (low <= newton) & (newton <= high)
        return jnp.where(inside, newton, 0.5 * (low + high)), low, high

    n = len(jax.tree.leaves(rows)[0])
    bracket = tuple(jnp.full(n, goal + side * bound) for side in (0, -1, 1))
    t = jax.lax.fori_loop(0, PASSES, step, bracket)[0]
    mean = {"mean": Reduce(SoftmaxMean("score"), "log_slope", "row")}
    mean_score = pair_reduce(tile, {"of": rows, "t": t}, cols, mean, params)["mean"]
    return t - (mean_score - jax.lax.stop_gradient(mean_score))


def _tile(row: Any, col: Any, params: Any, at: At, *, scores: Tile) -> dict[str, jax.Array]:
    score = scores(row["of"], col, params, at)["score"]
    x = jax.lax.stop_gradient(score + row["t"][:, None])
    passing, failing = jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
    return {
        "score": score,
        "passing": passing,
        "failing": jnp.where(jnp.isneginf(score), 0.0, failing),
        "slope": passing * failing,
        "log_slope": jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x),
    }
