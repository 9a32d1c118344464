"""The public face of the pair engine: what is reduced over the grid of pairs, and how.

    stats = pair_reduce(tile, rows, cols, reductions, params)

`tile(row, col, params, at)` scores a block of pairs: from r rows and c columns it makes terms of
shape (r, c). `reductions` says which statistics of those terms are wanted. An objective is then a
dozen lines of elementwise maths over the statistics.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce import reference
from pallas_kernels.pair_reduce.types import At, Op, Per, Reduce, Tile

Implementation = Literal["reference"]


def pair_reduce(
    tile: Tile,
    rows: Any,
    cols: Any,
    reductions: Mapping[str, Reduce],
    params: Any = None,
    *,
    impl: Implementation | None = None,
) -> dict[str, jax.Array]:
    """Statistics of elementwise terms over every pair of a row and a column.

    Args:
        tile: pure function of (row block, column block, params, At) that returns float terms of
            shape (r, c) by name. It may not look at anything else that is traced.
        rows: pytree whose leaves have the row axis (n) first: embeddings, labels, weights, ...
        cols: the same for the columns (m); n and m may differ.
        reductions: name of the statistic -> Reduce.
        params: pytree of what every tile sees whole, e.g. the logit scale.
        impl: which implementation runs; None leaves the choice to the engine.

    Returns:
        statistic name -> array of shape (n,), (m,) or (), in the term's dtype (float32 at least).

    Raises:
        ValueError, TypeError: at trace time, naming the argument that is wrong.
    """
    n, m = _length(rows, "rows"), _length(cols, "cols")
    for name, reduce in reductions.items():
        if reduce.op not in get_args(Op):
            raise ValueError(f"reductions[{name!r}]: unknown op {reduce.op!r}; {get_args(Op)}")
        if reduce.per not in get_args(Per):
            raise ValueError(f"reductions[{name!r}]: unknown per {reduce.per!r}; {get_args(Per)}")
    _check_terms(tile, rows, cols, params, reductions, n, m)
    if impl not in (None, *get_args(Implementation)):
        raise ValueError(f"impl: unknown implementation {impl!r}; {get_args(Implementation)}")
    return reference.pair_reduce(tile, rows, cols, reductions, params, n=n, m=m)


def _length(tree: Any, argument: str) -> int:
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{argument}: has no array in it")
    sizes = {}
    for path, leaf in leaves:
        if not jnp.ndim(leaf):
            raise ValueError(f"{argument}{jax.tree_util.keystr(path)}: a scalar; pass it in params")
        sizes[f"{argument}{jax.tree_util.keystr(path)}"] = jnp.shape(leaf)[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{argument}: leading sizes differ: {sizes}")
    return next(iter(sizes.values()))


def _check_terms(
    tile: Tile,
    rows: Any,
    cols: Any,
    params: Any,
    reductions: Mapping[str, Reduce],
    n: int,
    m: int,
) -> None:
    at = At(jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((m,), jnp.int32))
    terms = jax.eval_shape(tile, rows, cols, params, at)
    for name, reduce in reductions.items():
        if reduce.term not in terms:
            raise ValueError(f"reductions[{name!r}]: the tile makes no {reduce.term!r}, only {sorted(terms)}")
        term = terms[reduce.term]
        if term.shape != (n, m):
            raise ValueError(f"tile: {reduce.term!r} has shape {term.shape}, not (rows, cols) {(n, m)}")
        if not jnp.issubdtype(term.dtype, jnp.floating):
            raise TypeError(f"tile: {reduce.term!r} is {term.dtype}, not a float")
