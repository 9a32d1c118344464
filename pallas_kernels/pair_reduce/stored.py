"""How the arrays of a call lie in memory for a kernel, and how a kernel reads and writes them.

A side's leaf (n, k1, ..., kp) is a stack of pages, one for each block of the side: (blocks, K, b,
kp), where K = k1 ··· k(p-1) matrices stand one after another; a leaf of one number an example is
(blocks, 1, b). What every tile sees whole is one page. Flags are int32.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from pallas_kernels.pair_reduce.pieces import (
    Axis,
    Cut,
    Kind,
    Piece,
    Pieces,
    Place,
    Value,
    placed,
)

Side = Literal["row", "col", "all"]
KINDS = {"row": Kind.ROW, "col": Kind.COL, "all": Kind.WIDE}


class Stored(NamedTuple):
    """One leaf of a side, or (side "all") an array that every tile sees whole. Static.

    Attributes:
        shape: of the whole leaf; of side "all", of the array.
        block: examples of a page; whatever for "all".
    """

    shape: tuple[int, ...]
    dtype: Any
    side: Side
    block: int
    pieces: Pieces

    @property
    def blocks(self) -> int:
        return 1 if self.side == "all" else -(-self.shape[0] // self.block)

    @property
    def kernel_dtype(self) -> Any:
        if jnp.dtype(self.dtype).name not in self.pieces.target.lacks:
            return self.dtype
        return jnp.dtype("int32" if self.dtype == jnp.bool_ else "float32")

    @property
    def _length(self) -> int:
        """The first axis of what a page holds."""
        return self.block if self.side != "all" else (*self.shape, 1)[0]

    @property
    def _inner(self) -> tuple[int, ...]:
        """What there is of each of these."""
        return self.shape[1:]

    @property
    def _lines(self) -> tuple["_Line", "_Line"]:
        """How the two axes of a page's matrices are cut."""
        first = self._line(Axis(self._length, Place.FIRST, KINDS[self.side]))
        if not self._inner:
            return _Line(1, 1), first
        return first, self._line(Axis(self._inner[-1], Place.SECOND))

    def _line(self, axis: Axis) -> "_Line":
        return _Line(self.pieces.width(axis), self.pieces.cuts(axis))

    @property
    def page(self) -> tuple[int, ...]:
        """The shape of a page."""
        first, last = (line.length for line in self._lines)
        return (math.prod(self._inner[:-1]), first, last) if self._inner else (first, last)

    @property
    def page_bytes(self) -> int:
        return math.prod(self.page) * jnp.dtype(self.kernel_dtype).itemsize

    def paged(self, x: jax.Array) -> jax.Array:
        """The array as pages (blocks, *page); copies of the last row fill up the last of them."""
        x = jnp.atleast_1d(x).astype(self.kernel_dtype)
        missing = self.blocks * self._length - len(x)
        if missing:
            x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (missing, *x.shape[1:]))])
        if not self._inner:
            pages = x.reshape(self.blocks, 1, self._length)
        else:
            *outer, last = self._inner
            pages = x.reshape(self.blocks, self._length, math.prod(outer), last).swapaxes(1, 2)
        beyond = [(0, want - has) for want, has in zip((self.blocks, *self.page), pages.shape)]
        return jnp.pad(pages, beyond) if any(after for _, after in beyond) else pages

    def whole(self, pages: jax.Array) -> jax.Array:
        """The array of these pages; the reverse of `paged`."""
        if not self._inner:
            x = pages[..., : self._length].reshape(-1)
        else:
            x = pages[..., : self._length, : self._inner[-1]].swapaxes(1, 2)
            x = x.reshape(-1, *self._inner)
        return x[: (*self.shape, 1)[0]].reshape(self.shape)

    def read(self, page: Any) -> Value:
        """A page as the tile sees it.

        Args:
            page: a reference, or something that is indexed like one.
        """
        axes = self._axes

        def load(k: int, cut: Cut) -> jax.Array:
            x = page[self._index(k, cut)]
            x = x.T if self._turned else x
            return x != 0 if self.dtype == jnp.bool_ else x

        counts = self._counts(axes)
        pieces = np.empty(math.prod(counts), object)
        for k in range(len(pieces)):
            pieces[k] = Piece(partial(load, k), keep=self.pieces.whole(axes))
        return Value(axes, jnp.dtype(self.dtype), pieces.reshape(counts))

    def write(self, page: Any, value: Value) -> None:
        """Store a value of the tile's program as a page."""
        axes = self._axes
        value = self.pieces.arranged(value, axes)
        grid = np.broadcast_to(value.pieces, self._counts(axes)).reshape(-1)
        first, last = self._lines
        shape = (first.width, last.width)

        def put(k: int, cut: Cut) -> None:
            x = jnp.asarray(grid[k](cut)).astype(self.kernel_dtype)
            page[self._index(k, cut)] = jnp.broadcast_to(x.T if self._turned else x, shape)

        def turn(k: int, t: Any, _: None) -> None:
            t = jnp.asarray(t, jnp.int32)
            put(k, (0, t) if first.cuts == 1 else (t // last.cuts, t % last.cuts))

        for k, piece in enumerate(grid):
            if first.cuts * last.cuts == 1:
                put(k, (0, 0))
            else:
                piece.settle()
                jax.lax.fori_loop(0, first.cuts * last.cuts, partial(turn, k), None)

    @property
    def _turned(self) -> bool:
        """Whether a page lies across the tile: one number for each row."""
        return self.side == "row" and not self._inner

    @property
    def _axes(self) -> tuple[Axis, ...]:
        """The axes of a page as a Value."""
        length, kind = self._length, KINDS[self.side]
        if not self._inner:
            place = Place.FIRST if self._turned else Place.SECOND
            return (placed(length, place, kind),) if self.shape else ()
        *outer, last = self._inner
        return (
            placed(length, Place.FIRST, kind),
            *(placed(size, Place.LISTED) for size in outer),
            placed(last, Place.SECOND),
        )

    def _index(self, k: int, cut: Cut) -> tuple[Any, ...]:
        """Where in a page a cut of its k-th matrix lies."""
        parts = tuple(line.part(at) for line, at in zip(self._lines, cut))
        return (k, *parts) if self._inner else parts

    def _counts(self, axes: Sequence[Axis]) -> list[int]:
        """How many pieces there are along each axis."""
        return [axis.size if axis.place == Place.LISTED else 1 for axis in axes]


class _Line(NamedTuple):
    """An axis of a page's matrices."""

    width: int  # of a cut
    cuts: int

    @property
    def length(self) -> int:
        return self.width * self.cuts

    def part(self, at: Any) -> Any:
        """One cut of it, as an index."""
        return slice(None) if self.cuts == 1 else pl.ds(at * self.width, self.width)
