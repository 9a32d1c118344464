"""Visit every pair of two sides on one device, one tile at a time.

Every computation of the engine is a sweep: the forward pass merges statistics, the backward pass
adds gradients, and either keeps what it accumulates beside the row, the column or neither.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce.types import At


class State(NamedTuple):
    """What a sweep accumulates: pytrees with the rows first, the columns first, or neither."""

    row: Any
    col: Any
    all: Any


# visit(row block, column block, State of the blocks, At, valid (r, c) bool or None) -> State
Visit = Callable[[Any, Any, State, At, jax.Array | None], State]
# As `sweep` below; every implementation has one.
Sweep = Callable[..., State]
# Joins two states of one kind: None means that they are added.
Merge = Callable[[Any, Any], Any] | None


def sweep(
    visit: Visit,
    rows: Any,
    cols: Any,
    state: State,
    start: At,
    *,
    blocks: tuple[int, int],
    group: tuple[int, int] | None = None,
    merge: Merge = None,
    empty: Any = None,
) -> State:
    """Visit all tiles of `rows` × `cols` in a fixed order.

    The last block of a side that the block size does not divide reaches back over rows (columns)
    that were visited already, and `valid` marks those pairs: a tile never sees made-up padding.

    Args:
        rows: pytree, n first; `cols`: pytree, m first.
        state: what earlier sweeps accumulated.
        start: global positions of the first row and the first column.
        blocks: rows and columns of a tile, at most n and m.
        group: rows and columns of a group; pairs of two groups do not count, and tiles without any
            pair that counts are not visited.
        merge: joins two states over all pairs, for a sweep that visits tiles side by side.
        empty: the state over all pairs before any tile; None: zeros.
    """
    n, m = length(rows), length(cols)
    if not n or not m:
        return state
    r, c = min(blocks[0], n), min(blocks[1], m)

    def row_block(i: Any, state: State) -> State:
        at_i = jnp.minimum(jnp.asarray(i, jnp.int32) * r, n - r)
        row, row_state = cut(rows, at_i, r), cut(state.row, at_i, r)
        at_r = start.row + at_i + jnp.arange(r, dtype=jnp.int32)

        def tile(j: Any, seen: State) -> State:
            at_j = jnp.minimum(jnp.asarray(j, jnp.int32) * c, m - c)
            at = At(at_r, start.col + at_j + jnp.arange(c, dtype=jnp.int32))
            valid = all_of(
                None if n % r == 0 else (at.row >= start.row + i * r)[:, None],
                None if m % c == 0 else (at.col >= start.col + j * c)[None, :],
                None if group is None else (at.row // group[0])[:, None] == at.col // group[1],
            )
            before = State(seen.row, cut(seen.col, at_j, c), seen.all)
            after = visit(row, cut(cols, at_j, c), before, at, valid)
            return State(after.row, paste(seen.col, after.col, at_j), after.all)

        first: Any = 0
        last: Any = -(-m // c)
        if group is not None:
            low = at_r[0] // group[0] * group[1] - start.col
            high = (at_r[-1] // group[0] + 1) * group[1] - start.col
            first, last = jnp.clip(low // c, 0, last), jnp.clip(-(-high // c), 0, last)
        after = _loop(first, last, tile, State(row_state, state.col, state.all))
        return State(paste(state.row, after.row, at_i), after.col, after.all)

    return _loop(0, -(-n // r), row_block, state)


def _loop(first: Any, last: Any, body: Callable[[Any, State], State], state: State) -> State:
    if isinstance(last, int) and last == 1:
        return body(0, state)
    return jax.lax.fori_loop(first, last, body, state)


def all_of(*masks: jax.Array | None) -> jax.Array | None:
    """The conjunction of those masks that there are."""
    some = [mask for mask in masks if mask is not None]
    if not some:
        return None
    valid = some[0]
    for mask in some[1:]:
        valid = valid & mask
    return valid


def added(a: Any, b: Any) -> Any:
    """The sum of two pytrees."""
    return jax.tree.map(jnp.add, a, b)


def length(tree: Any) -> int:
    """The size of the leading axis."""
    return int(jax.tree.leaves(tree)[0].shape[0])


def cut(tree: Any, at: Any, size: int) -> Any:
    """`size` entries of the leading axis from position `at` on."""
    return jax.tree.map(
        lambda x: x if len(x) == size else jax.lax.dynamic_slice_in_dim(x, at, size), tree
    )


def paste(tree: Any, block: Any, at: Any) -> Any:
    """`tree` with `block` in place of the entries from `at` on."""

    def one(x: jax.Array, b: jax.Array) -> jax.Array:
        if x.shape == b.shape:
            return b
        return jax.lax.dynamic_update_slice_in_dim(x, b.astype(x.dtype), at, 0)

    return jax.tree.map(one, tree, block)
