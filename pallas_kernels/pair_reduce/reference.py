"""The dense meaning of `pair_reduce`: one tile as large as the grid. Exact, and O(n·m) memory."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce.types import At, Reduce, Tile


def pair_reduce(
    tile: Tile,
    rows: Any,
    cols: Any,
    reductions: Mapping[str, Reduce],
    params: Any,
    *,
    n: int,
    m: int,
) -> dict[str, jax.Array]:
    """See `pallas_kernels.pair_reduce.pair_reduce`."""
    at = At(jnp.arange(n, dtype=jnp.int32), jnp.arange(m, dtype=jnp.int32))
    terms = tile(rows, cols, params, at)
    axes: dict[str, int | None] = {"row": 1, "col": 0, "all": None}
    ops: dict[str, Any] = {"sum": jnp.sum, "logsumexp": _logsumexp, "max": _max}
    return {
        name: ops[reduce.op](_at_least_float32(terms[reduce.term]), axis=axes[reduce.per])
        for name, reduce in reductions.items()
    }


def _at_least_float32(term: jax.Array) -> jax.Array:
    return term.astype(jnp.promote_types(term.dtype, jnp.float32))


def _logsumexp(term: jax.Array, axis: int | None) -> jax.Array:
    """log Σ exp, shifted by the maximum; -inf with zero gradient where every entry is -inf."""
    top = jax.lax.stop_gradient(jnp.max(term, axis=axis, keepdims=True, initial=-jnp.inf))
    shift = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.sum(jnp.exp(term - shift), axis=axis)
    empty = total == 0
    log = jnp.log(jnp.where(empty, 1.0, total)) + jnp.squeeze(shift, axis)
    return jnp.where(empty, -jnp.inf, log)


def _max(term: jax.Array, axis: int | None) -> jax.Array:
    """The largest entry; its gradient goes to the first of equal ones, none where all are -inf."""
    if axis is None:
        term, axis = term.reshape(1, -1), 1
        return _max(term, axis)[0]
    if term.shape[axis] == 0:
        return jnp.full((term.shape[1 - axis],), -jnp.inf, term.dtype)
    winner = jnp.expand_dims(jnp.argmax(term, axis=axis), axis)
    best = jnp.squeeze(jnp.take_along_axis(term, winner, axis=axis), axis)
    return jnp.where(jnp.isneginf(best), -jnp.inf, best)
