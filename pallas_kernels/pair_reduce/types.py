"""The words of the pair engine: where a tile lies, and what is reduced over it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

Per = Literal["row", "col", "all"]


class At(NamedTuple):
    """Where a tile lies: global positions in the unpadded, unsharded rows and columns.

    `at.row[:, None] == at.col` is the diagonal (or the pair of an item with itself).
    """

    row: jax.Array  # (r,) int32
    col: jax.Array  # (c,) int32


@dataclasses.dataclass(frozen=True)
class SoftmaxMean:
    """Σ_j softmax_j(term) · value_ij, made online as attention makes it.

    Attributes:
        value: a term of the tile, for a statistic of shape (n,), whatever it is where the averaging
            term is -inf; or a float leaf of the other side (dotted where it is nested:
            "teacher.z"), for one of shape (n, ...).
    """

    value: str


@dataclasses.dataclass(frozen=True)
class TopK:
    """The k largest entries of a row, largest first; of equal ones that with the lowest index.

    Attributes:
        k: how many.
        carry: names of leaves of the other side that are brought along for the winners.
    """

    k: int
    carry: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sample:
    """k entries of a row drawn without replacement, each draw ∝ exp(term) (Gumbel top-k).

    The noise of a pair is a hash of (key, global row, global column): the draw is the same on every
    mesh and for every block size. In the order in which they were drawn.

    Attributes:
        k: how many.
        key: a PRNG key of jax; may be traced.
        carry: as in TopK.
    """

    k: int
    key: jax.Array
    carry: tuple[str, ...] = ()


Op = Literal["sum", "logsumexp", "max"] | SoftmaxMean | TopK | Sample


class Reduce(NamedTuple):
    """One statistic: `op` of the tile's `term`, `per` row (n,), per column (m,) or over all ().

    An empty row (no column at all, or only entries of -inf where the op takes exponentials or
    compares) has sum 0, logsumexp -inf, max -inf, softmax mean 0, winners of value -inf and index
    -1, and a zero gradient whatever the cotangent. The gradients of `max`, TopK and Sample go to
    the winning entries only.
    """

    op: Op
    term: str
    per: Per


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Winners:
    """What TopK and Sample give: per row, shapes (n, k); per column (m, k); over all (k,)."""

    value: jax.Array  # the term of each winner; -inf where there are fewer than k
    index: jax.Array  # int32, its global position on the other side, -1 where there is none; over
    #                   all pairs (k, 2): row and column
    carry: dict[str, jax.Array]  # leaf name -> (n, k, ...), zero where there is none


Tile = Callable[[Any, Any, Any, At], Mapping[str, jax.Array]]
