"""The words of the pair engine: where a tile lies, and what is reduced over it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

Op = Literal["sum", "logsumexp", "max"]
Per = Literal["row", "col", "all"]


class At(NamedTuple):
    """Where a tile lies: global positions in the unpadded, unsharded rows and columns.

    `at.row[:, None] == at.col` is the diagonal (or the pair of an item with itself).
    """

    row: jax.Array  # (r,) int32
    col: jax.Array  # (c,) int32


class Reduce(NamedTuple):
    """One statistic: `op` of the tile's `term`, `per` row (n,), per column (m,) or over all ().

    An empty row (no column at all) has sum 0, logsumexp -inf, max -inf and a zero gradient; so have
    logsumexp and max where every entry is -inf. The gradient of `max` goes to the first of equal
    winners.
    """

    op: Op
    term: str
    per: Per


Tile = Callable[[Any, Any, Any, At], Mapping[str, jax.Array]]
