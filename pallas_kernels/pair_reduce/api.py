"""The public face of the pair engine: what is reduced over the grid of pairs, and how.

    stats = pair_reduce(tile, rows, cols, reductions, params)

`tile(row, col, params, at)` scores a block of pairs: from r rows and c columns it makes terms of
shape (r, c). `reductions` says which statistics of those terms are wanted. An objective is then a
dozen lines of elementwise maths over the statistics.
"""

import inspect
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
            shape (r, c) by name. A traced array it captures is refused: pass it through params.
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
    at = jax.eval_shape(lambda: At(jnp.arange(n, dtype=jnp.int32), jnp.arange(m, dtype=jnp.int32)))
    jaxpr, terms = jax.make_jaxpr(tile, return_shape=True)(rows, cols, params, at)
    for const in jaxpr.consts:
        if isinstance(const, jax.core.Tracer):
            raise ValueError(
                f"tile: captures {_name(tile, const)}a traced {const.dtype}{list(const.shape)};"
                " pass it through params, rows or cols"
            )
    for name, reduce in reductions.items():
        if reduce.term not in terms:
            made = sorted(terms)
            raise ValueError(
                f"reductions[{name!r}]: the tile makes no {reduce.term!r}, only {made}"
            )
        term, of = terms[reduce.term], f"tile: {reduce.term!r}"
        if term.shape != (n, m):
            raise ValueError(f"{of} has shape {term.shape}, not (rows, cols) {(n, m)}")
        if not jnp.issubdtype(term.dtype, jnp.floating):
            raise TypeError(f"{of} is {term.dtype}, not a float")


def _name(tile: Tile, captured: jax.Array) -> str:
    """The name, with a comma, under which the tile's closure or defaults hold it; "" if hidden."""
    tile = inspect.unwrap(tile)
    held = {name: p.default for name, p in inspect.signature(tile).parameters.items()}
    if inspect.isfunction(tile):
        held |= inspect.getclosurevars(tile).nonlocals
    for name, value in held.items():
        if any(leaf is captured for leaf in jax.tree.leaves(value)):
            return f"{name!r}, "
    return ""
