"""What each reduction remembers of the tiles it has seen, and what it sends back to them.

A statistic is a monoid: `of_tile` makes a state from one tile, `merge` joins two, `fill` is the
state of no tile at all, `result` is what the caller gets. States have the row axis first (per row),
the column axis first (per column), or neither. `pull` turns the cotangent of the result into the
cotangents of a tile's terms, given what `residual` kept.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce import noise
from pallas_kernels.pair_reduce.types import At, Per, Reduce, Sample, SoftmaxMean, TopK


class Seen(NamedTuple):
    """One evaluated tile."""

    terms: dict[str, jax.Array]  # (r, c) each
    row: Any  # the block's leaves, half precision widened
    col: Any
    at: At
    valid: jax.Array | None  # (r, c) bool: False where a pair does not count; None: all count

    def term(self, name: str, fill: float) -> jax.Array:
        """A term, float32 at least, with `fill` at the pairs that do not count."""
        term = at_least_float32(self.terms[name])
        return term if self.valid is None else jnp.where(self.valid, term, fill)


class Pulled(NamedTuple):
    """Cotangents that one statistic sends into a tile; void where a pair does not count."""

    terms: dict[str, jax.Array]  # term -> (r, c)
    leaf: jax.Array | None = None  # of the leaf of the other side that a SoftmaxMean averages


class Statistic(Protocol):
    """What every reduction knows; each class below is one `op`."""

    @property
    def per(self) -> Per: ...

    @property
    def fill(self) -> Any: ...  # pytree like the state: its values before any tile

    def of_tile(self, seen: Seen) -> Any: ...
    def merge(self, a: Any, b: Any) -> Any: ...
    def result(self, state: Any) -> Any: ...
    def residual(self, state: Any) -> Any: ...
    def pull(self, seen: Seen, residual: Any, cotangent: Any) -> Pulled: ...


def statistic(reduce: Reduce, key: jax.Array | None = None) -> "Statistic":
    """The statistic that a Reduce asks for; `key` in place of the one that a Sample holds."""
    op, term, per = reduce
    if isinstance(op, SoftmaxMean):
        return SoftmaxAverage(term, per, op.value)
    if isinstance(op, TopK):
        return Best(term, per, op.k)
    if isinstance(op, Sample):
        return Best(term, per, op.k, key=op.key if key is None else key)
    named: dict[str, Callable[[str, Per], Statistic]] = {
        "sum": Sum,
        "logsumexp": LogSumExp,
        "max": Max,
    }
    return named[op](term, per)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Σ of a term."""

    term: str
    per: Per
    fill = 0.0

    def of_tile(self, seen: Seen) -> jax.Array:
        return jnp.sum(seen.term(self.term, 0.0), axis=_axis(self.per))

    def merge(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def result(self, state: jax.Array) -> jax.Array:
        return state

    def residual(self, state: jax.Array) -> None:
        return None

    def pull(self, seen: Seen, residual: None, cotangent: jax.Array) -> Pulled:
        term = seen.term(self.term, 0.0)
        return Pulled({self.term: jnp.broadcast_to(across(cotangent, self.per), term.shape)})


class Exponentials(NamedTuple):
    """Σ exp(x − top) beside the largest x so far."""

    top: Any
    total: Any


def _exponentials(x: jax.Array, per: Per) -> tuple[Exponentials, jax.Array]:
    """The sum of a tile's exponentials and the shifted exponentials themselves, (r, c)."""
    top = jnp.max(x, axis=_axis(per))
    e = jnp.exp(x - across(_finite_or_zero(top), per))
    return Exponentials(top, jnp.sum(e, axis=_axis(per))), e


def _rescaled(a: Exponentials, b: Exponentials) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The joint top, and the factors that bring either sum to it."""
    top = jnp.maximum(a.top, b.top)
    shift = _finite_or_zero(top)
    return top, jnp.exp(a.top - shift), jnp.exp(b.top - shift)


def _log(state: Exponentials) -> jax.Array:
    """log Σ exp x; -inf where there was nothing."""
    empty = state.total == 0
    log = jnp.log(jnp.where(empty, 1.0, state.total)) + _finite_or_zero(state.top)
    return jnp.where(empty, -jnp.inf, log)


def _probability(x: jax.Array, lse: jax.Array, cotangent: Any, per: Per) -> Any:
    """exp(x − lse) · cotangent, (r, c); 0 where lse is -inf, whatever the cotangent."""
    empty = jnp.isneginf(lse)
    lse, cotangent = jnp.where(empty, 0.0, lse), jnp.where(empty, 0.0, cotangent)
    return jnp.exp(x - across(lse, per)) * across(cotangent, per)


@dataclasses.dataclass(frozen=True)
class LogSumExp:
    """log Σ exp of a term, with a running maximum."""

    term: str
    per: Per
    fill = Exponentials(-jnp.inf, 0.0)

    def of_tile(self, seen: Seen) -> Exponentials:
        return _exponentials(seen.term(self.term, -jnp.inf), self.per)[0]

    def merge(self, a: Exponentials, b: Exponentials) -> Exponentials:
        top, factor_a, factor_b = _rescaled(a, b)
        return Exponentials(top, a.total * factor_a + b.total * factor_b)

    def result(self, state: Exponentials) -> jax.Array:
        return _log(state)

    def residual(self, state: Exponentials) -> jax.Array:
        return _log(state)

    def pull(self, seen: Seen, residual: jax.Array, cotangent: jax.Array) -> Pulled:
        x = seen.term(self.term, -jnp.inf)
        return Pulled({self.term: _probability(x, residual, cotangent, self.per)})


@dataclasses.dataclass(frozen=True)
class SoftmaxAverage:
    """Σ softmax(term) · value, the value a term or a leaf of the other side."""

    term: str
    per: Per
    value: str
    fill = (Exponentials(-jnp.inf, 0.0), 0.0)

    def _value(self, seen: Seen) -> tuple[jax.Array, bool]:
        """The value, 0 where the term is -inf, and whether it is a leaf of the other side."""
        if self.value in seen.terms:
            none = jnp.isneginf(seen.term(self.term, -jnp.inf))
            return jnp.where(none, 0.0, seen.term(self.value, 0.0)), False
        side = seen.col if self.per == "row" else seen.row
        return at_least_float32(leaf(side, self.value)), True

    def of_tile(self, seen: Seen) -> tuple[Exponentials, jax.Array]:
        state, e = _exponentials(seen.term(self.term, -jnp.inf), self.per)
        value, is_leaf = self._value(seen)
        if is_leaf:
            return state, jnp.tensordot(e if self.per == "row" else e.T, value, axes=1)
        return state, jnp.sum(e * value, axis=_axis(self.per))

    def merge(self, a: Any, b: Any) -> tuple[Exponentials, jax.Array]:
        top, factor_a, factor_b = _rescaled(a[0], b[0])
        total = a[0].total * factor_a + b[0].total * factor_b
        return Exponentials(top, total), a[1] * aligned(factor_a, a[1]) + b[1] * aligned(
            factor_b, b[1]
        )

    def result(self, state: Any) -> jax.Array:
        total = jnp.where(state[0].total == 0, 1.0, state[0].total)
        return state[1] / aligned(total, state[1])

    def residual(self, state: Any) -> tuple[jax.Array, jax.Array]:
        return _log(state[0]), self.result(state)

    def pull(self, seen: Seen, residual: Any, cotangent: jax.Array) -> Pulled:
        lse, mean = residual
        x = seen.term(self.term, -jnp.inf)
        value, is_leaf = self._value(seen)
        if not is_leaf:
            p = _probability(x, lse, cotangent, self.per)
            away = value - across(mean, self.per)
            if self.value == self.term:
                return Pulled({self.term: p * away + p})
            return Pulled({self.term: p * away, self.value: p})
        empty = jnp.isneginf(lse)
        cotangent = jnp.where(aligned(empty, cotangent), 0.0, cotangent.astype(mean.dtype))
        p = _probability(x, lse, jnp.ones_like(lse), self.per)
        inner = tuple(range(1, value.ndim))
        mean = jnp.sum(cotangent * mean, axis=inner)
        p = p if self.per == "row" else p.T
        d_logit = p * (jnp.tensordot(cotangent, value, (inner, inner)) - mean[:, None])
        d_leaf = jnp.tensordot(p, cotangent, (0, 0))
        return Pulled({self.term: d_logit if self.per == "row" else d_logit.T}, d_leaf)


class Picks(NamedTuple):
    """The k best so far: shapes (..., k)."""

    rank: Any  # what they are ordered by, largest first
    value: Any  # the term itself
    at: tuple[Any, ...]  # position on the other side; over all pairs: row, column


@dataclasses.dataclass(frozen=True)
class Best:
    """The k entries of largest term or, with a key, of largest term plus Gumbel noise."""

    term: str
    per: Per
    k: int
    key: jax.Array | None = None

    @property
    def fill(self) -> Picks:
        sides = 2 if self.per == "all" else 1
        return Picks(-jnp.inf, -jnp.inf, (-1,) * sides)

    def of_tile(self, seen: Seen) -> Picks:
        value = seen.term(self.term, -jnp.inf)
        rank = value
        if self.key is not None:
            rank = value + noise.gumbel(self.key, seen.at.row, seen.at.col, value.dtype)
        rank = ordered(rank)
        if self.per == "col":
            return self._of_lines(rank.T, value.T, seen.at.row)
        picks = self._of_lines(rank, value, seen.at.col)
        if self.per == "row":
            return picks
        row = jnp.where(picks.at[0] < 0, -1, seen.at.row[:, None])
        flat = Picks(picks.rank, picks.value, (row, picks.at[0]))
        return self._first(jax.tree.map(jnp.ravel, flat))

    def _of_lines(self, rank: jax.Array, value: jax.Array, at: jax.Array) -> Picks:
        """The best of each line of (lines, entries), with positions `at` of the entries."""
        k = min(self.k, rank.shape[1])
        if k == 1:
            where = jnp.argmax(rank, axis=1, keepdims=True)
        else:
            where = jax.lax.top_k(rank, k)[1]
        rank, value = (jnp.take_along_axis(x, where, axis=1) for x in (rank, value))
        index = jnp.where(jnp.isneginf(rank), -1, at[where])
        picks = Picks(rank, value, (index,))
        missing = [(0, 0), (0, self.k - k)]
        return jax.tree.map(
            lambda x, fill: jnp.pad(x, missing, constant_values=fill),
            picks,
            Picks(-jnp.inf, -jnp.inf, (-1,)),
        )

    def _first(self, picks: Picks) -> Picks:
        """The first k in the order of rank, ties by position."""
        keys = (-picks.rank, *picks.at)
        _, *rest = jax.lax.sort((*keys, picks.rank, picks.value), num_keys=len(keys))
        *index, rank, value = (x[..., : self.k] for x in rest)
        return Picks(rank, value, tuple(index))

    def merge(self, a: Picks, b: Picks) -> Picks:
        joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), a, b)
        return self._first(joined)

    def result(self, state: Picks) -> Any:
        index = state.at[0] if len(state.at) == 1 else jnp.stack(state.at, axis=-1)
        return state.value, index

    def residual(self, state: Picks) -> tuple[jax.Array, ...]:
        return state.at

    def pull(self, seen: Seen, residual: Any, cotangent: Any) -> Pulled:
        value = cotangent[0]
        r, c = len(seen.at.row), len(seen.at.col)
        row, col = seen.at.row[0], seen.at.col[0]  # positions of a tile are consecutive
        if self.per == "all":
            i, j = _inside(residual[0] - row, r), _inside(residual[1] - col, c)
        elif self.per == "row":
            i, j = jnp.arange(r)[:, None], _inside(residual[0] - col, c)
        else:
            i, j = _inside(residual[0] - row, r), jnp.arange(c)[:, None]
        d_term = jnp.zeros((r, c), value.dtype).at[i, j].add(value, mode="drop")
        return Pulled({self.term: d_term})


class Largest(NamedTuple):
    """The largest entry so far."""

    rank: Any  # what it is compared by
    value: Any  # the term itself
    at: tuple[Any, ...]  # position on the other side; over all pairs: row, column


@dataclasses.dataclass(frozen=True)
class Max:
    """The largest entry; its gradient goes to the first of equal ones."""

    term: str
    per: Per

    @property
    def fill(self) -> Largest:
        return Largest(-jnp.inf, -jnp.inf, (-1,) * (2 if self.per == "all" else 1))

    def of_tile(self, seen: Seen) -> Largest:
        value = seen.term(self.term, -jnp.inf)
        rank = ordered(value)
        top = jnp.max(rank, axis=_axis(self.per))
        here = rank == across(top, self.per)
        row, col = (jnp.broadcast_to(at, value.shape) for at in _grid(seen.at))
        if self.per == "all":
            first = _least(row, here, None)
            at: tuple[jax.Array, ...] = (first, _least(col, here & (row == first), None))
            here = here & (row == at[0]) & (col == at[1])
        else:
            other = col if self.per == "row" else row
            at = (_least(other, here, _axis(self.per)),)
            here = here & (other == across(at[0], self.per))
        found = jnp.max(jnp.where(here, value, -jnp.inf), axis=_axis(self.per))
        empty = jnp.isneginf(top)
        return Largest(top, found, tuple(jnp.where(empty, -1, index) for index in at))

    def merge(self, a: Largest, b: Largest) -> Largest:
        earlier = a.at[-1] < b.at[-1]
        if len(a.at) > 1:
            earlier = (a.at[0] < b.at[0]) | ((a.at[0] == b.at[0]) & earlier)
        first = (a.rank > b.rank) | ((a.rank == b.rank) & earlier)
        return jax.tree.map(lambda x, y: jnp.where(first, x, y), a, b)

    def result(self, state: Largest) -> jax.Array:
        return state.value

    def residual(self, state: Largest) -> tuple[jax.Array, ...]:
        return state.at

    def pull(self, seen: Seen, residual: tuple[jax.Array, ...], cotangent: jax.Array) -> Pulled:
        row, col = _grid(seen.at)
        if self.per == "all":
            here = (row == residual[0]) & (col == residual[1])
        else:
            here = (col if self.per == "row" else row) == across(residual[0], self.per)
        return Pulled({self.term: jnp.where(here, across(cotangent, self.per), 0.0)})


def _grid(at: At) -> tuple[jax.Array, jax.Array]:
    """Positions of the rows (r, 1) and of the columns (1, c) of a tile."""
    return at.row[:, None], at.col[None, :]


def _least(index: jax.Array, where: jax.Array, axis: int | None) -> jax.Array:
    """The least of those entries of `index` (r, c) that are marked."""
    return jnp.min(jnp.where(where, index, jnp.iinfo(jnp.int32).max), axis=axis)


def across(x: jax.Array, per: Per) -> jax.Array:
    """A per-row or per-column vector, laid out to meet a tile (r, c)."""
    return {"row": lambda: x[:, None], "col": lambda: x[None, :], "all": lambda: x}[per]()


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half precision widened; everything else as it is."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def ordered(rank: jax.Array) -> jax.Array:
    """`rank` without what has no place in an order: -0 is 0, and NaN as large as may be."""
    return jnp.where(rank == 0, 0.0, jnp.where(jnp.isnan(rank), jnp.inf, rank))


def leaf(tree: Any, name: str) -> Any:
    """The leaf under a dotted name, in nested mappings."""
    return functools.reduce(lambda node, key: node[key], name.split("."), tree)


def _axis(per: Per) -> int | None:
    return {"row": 1, "col": 0, "all": None}[per]


def _finite_or_zero(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x), x, 0.0)


def aligned(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` with trailing axes added until it meets `like`."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _inside(local: jax.Array, size: int) -> jax.Array:
    """A position inside the tile as it is, any other as one that a scatter drops."""
    return jnp.where((local >= 0) & (local < size), local, size)
