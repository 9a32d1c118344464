"""The dense meaning of the engine: one tile as large as the grid. Exact, and O(n·m) memory.

Plain jax.numpy that jax differentiates itself; it shares no arithmetic with the tiled
implementations, which are held to it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce import noise
from pallas_kernels.pair_reduce.statistics import at_least_float32, leaf, ordered
from pallas_kernels.pair_reduce.sweep import length
from pallas_kernels.pair_reduce.types import At, Reduce, Sample, SoftmaxMean, TopK
from pallas_kernels.pair_reduce.xla import Problem

AXES: dict[str, int | None] = {"row": 1, "col": 0, "all": None}


def pair_reduce(
    problem: Problem, rows: Any, cols: Any, params: Any, keys: Mapping[str, jax.Array]
) -> dict[str, Any]:
    """See `pallas_kernels.pair_reduce.pair_reduce`; TopK and Sample give (value, index)."""
    n, m = (length(tree) for tree in (rows, cols))
    at = At(jnp.arange(n, dtype=jnp.int32), jnp.arange(m, dtype=jnp.int32))
    rows, cols, params = (jax.tree.map(at_least_float32, tree) for tree in (rows, cols, params))
    terms = problem.evaluate(rows, cols, params, at)
    counts = jnp.ones((n, m), bool)
    if problem.groups is not None:
        group = (n // problem.groups, m // problem.groups)
        counts = (at.row // group[0])[:, None] == at.col // group[1]

    def masked(name: str, fill: float) -> jax.Array:
        return jnp.where(counts, terms[name], fill)

    def statistic(name: str, reduce: Reduce) -> Any:
        op, term, per = reduce
        if op == "sum":
            return jnp.sum(masked(term, 0.0), axis=AXES[per])
        x = masked(term, -jnp.inf)
        if op == "logsumexp":
            return _logsumexp(x, AXES[per])
        if op == "max":
            return _max(x, AXES[per])
        if isinstance(op, SoftmaxMean):
            if op.value in terms:
                averaged = jnp.where(jnp.isneginf(x), 0.0, masked(op.value, 0.0))
                return jnp.sum(_softmax(x, AXES[per]) * averaged, axis=AXES[per])
            value = leaf(cols if per == "row" else rows, op.value)
            p = _softmax(x, AXES[per])
            return jnp.tensordot(p if per == "row" else p.T, value, axes=1)
        assert isinstance(op, TopK | Sample)
        rank = jax.lax.stop_gradient(x)
        if isinstance(op, Sample):
            rank = rank + noise.gumbel(keys[name], at.row, at.col, x.dtype)
        return _winners(x, ordered(rank), op.k, per)

    return {name: statistic(name, reduce) for name, reduce in problem.reductions.items()}


def _logsumexp(term: jax.Array, axis: int | None) -> jax.Array:
    """log Σ exp, shifted by the maximum; -inf with zero gradient where every entry is -inf."""
    top = jax.lax.stop_gradient(jnp.max(term, axis=axis, keepdims=True, initial=-jnp.inf))
    shift = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.sum(jnp.exp(term - shift), axis=axis)
    empty = total == 0
    log = jnp.log(jnp.where(empty, 1.0, total)) + jnp.squeeze(shift, axis)
    return jnp.where(empty, -jnp.inf, log)


def _softmax(term: jax.Array, axis: int | None) -> jax.Array:
    """exp / Σ exp; zero, with zero gradient, where every entry is -inf."""
    top = jax.lax.stop_gradient(jnp.max(term, axis=axis, keepdims=True, initial=-jnp.inf))
    e = jnp.exp(term - jnp.where(jnp.isfinite(top), top, 0.0))
    total = jnp.sum(e, axis=axis, keepdims=True)
    return jnp.where(total == 0, 0.0, e / jnp.where(total == 0, 1.0, total))


def _max(term: jax.Array, axis: int | None) -> jax.Array:
    """The largest entry; its gradient goes to the first of equal ones, none where all are -inf."""
    if axis is None:
        term, axis = term.reshape(1, -1), 1
        return _max(term, axis)[0]
    if term.shape[axis] == 0:
        return jnp.full((term.shape[1 - axis],), -jnp.inf, term.dtype)
    winner = jnp.expand_dims(jnp.argmax(ordered(term), axis=axis), axis)
    best = jnp.squeeze(jnp.take_along_axis(term, winner, axis=axis), axis)
    return jnp.where(jnp.isneginf(best), -jnp.inf, best)


def _winners(term: jax.Array, rank: jax.Array, k: int, per: str) -> tuple[jax.Array, jax.Array]:
    """Values and positions of the k of highest rank, by one stable sort of whole lines."""
    m = term.shape[1]
    lines, ranks = {
        "row": lambda: (term, rank),
        "col": lambda: (term.T, rank.T),
        "all": lambda: (term.reshape(1, -1), rank.reshape(1, -1)),
    }[per]()
    missing = [(0, 0), (0, max(0, k - lines.shape[1]))]
    lines, ranks = (jnp.pad(x, missing, constant_values=-jnp.inf) for x in (lines, ranks))
    index = jnp.argsort(-ranks, axis=1, stable=True)[:, :k].astype(jnp.int32)
    value = jnp.take_along_axis(lines, index, axis=1)
    none = jnp.isneginf(value)
    value = jnp.where(none, -jnp.inf, value)
    if per == "all":
        both = jnp.stack([index // max(m, 1), index % max(m, 1)], axis=-1)
        return value[0], jnp.where(none[..., None], -1, both)[0]
    return value, jnp.where(none, -1, index)
