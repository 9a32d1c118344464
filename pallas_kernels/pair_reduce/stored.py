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

from pallas_kernels.pair_reduce.pieces import Axis, Kind, Piece, Pieces, Place, Value

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
        return jnp.dtype("int32") if self.dtype == jnp.bool_ else self.dtype

    @property
    def _inner(self) -> tuple[int, ...]:
        """What an example has; of "all", all but a first axis."""
        if self.side != "all":
            return self.shape[1:]
        return self.shape[1:] if len(self.shape) > 1 else ()

    @property
    def page(self) -> tuple[int, ...]:
        """The shape of a page."""
        first, last = self._cuts
        if not self._inner:
            return (1, sum(last))
        return (math.prod(self._inner[:-1]), sum(first), sum(last))

    @property
    def _cuts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The lengths in which the two axes of a page's matrices are cut."""
        length = self.block if self.side != "all" else (self.shape[0] if self.shape else 1)
        first = self.pieces.cuts(Axis(length, Place.FIRST, KINDS[self.side]))
        if not self.shape:
            return (1,), (1,)
        if not self._inner:
            return (1,), first
        return first, (1,) if self._inner[-1] == 1 else self.pieces.cuts(
            Axis(self._inner[-1], Place.SECOND)
        )

    @property
    def page_bytes(self) -> int:
        return math.prod(self.page) * jnp.dtype(self.kernel_dtype).itemsize

    def paged(self, x: jax.Array) -> jax.Array:
        """The array as pages (blocks, *page); copies of the last row fill up the last of them."""
        x = x.astype(self.kernel_dtype)
        length = self.shape[0] if self.shape else 1
        if self.side != "all":
            length = self.block
            missing = self.blocks * self.block - len(x)
            if missing:
                x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (missing, *x.shape[1:]))])
        if not self._inner:
            pages = x.reshape(self.blocks, 1, length)
        else:
            pages = x.reshape(self.blocks, length, math.prod(self._inner[:-1]), self._inner[-1])
            pages = pages.swapaxes(1, 2)
        beyond = [(0, want - has) for want, has in zip((self.blocks, *self.page), pages.shape)]
        return jnp.pad(pages, beyond) if any(after for _, after in beyond) else pages

    def whole(self, pages: jax.Array) -> jax.Array:
        """The array of these pages; the reverse of `paged`."""
        length = self.block if self.side != "all" else (self.shape[0] if self.shape else 1)
        if not self._inner:
            x = pages[..., :length].reshape(-1)
        else:
            x = pages[..., :length, : self._inner[-1]].swapaxes(1, 2).reshape(-1, *self._inner)
        size = self.shape[0] if self.shape else 1
        return x[:size].reshape(self.shape)

    def read(self, page: Any, keep: bool = True) -> Value:
        """A page as the tile sees it.

        Args:
            page: a reference, or something that is indexed like one.
            keep: whether what was read stays in registers; else it is read again at each use.
        """
        axes, parts = self._parts()
        pieces = np.empty(len(parts), object)
        turned = self._turned

        def load(index: Any) -> jax.Array:
            x = page[index]
            x = x.T if turned else x
            return x != 0 if self.dtype == jnp.bool_ else x

        for i, index in enumerate(parts):
            pieces[i] = Piece(partial(load, index), keep)
        counts = self._counts(axes)
        return Value(axes, jnp.dtype(self.dtype), pieces.reshape(counts))

    def write(self, page: Any, value: Value) -> None:
        """Store a value of the tile's program as a page."""
        axes, parts = self._parts()
        value = self.pieces.arranged(value, axes)
        for i, axis in enumerate(axes):
            if axis.place == Place.LISTED and value.axes[i].place == Place.SAME:
                value = value._replace(pieces=np.repeat(value.pieces, axis.size, axis=i))
        grid = np.broadcast_to(value.pieces, self._counts(axes)).reshape(-1)
        for index, piece in zip(parts, grid):
            x = piece()
            shape = np.shape(jax.eval_shape(lambda index=index: page[index]))
            x = jnp.asarray(x)
            if x.ndim == 2 and self._turned:
                x = x.T
            page[index] = jnp.broadcast_to(x, shape).astype(self.kernel_dtype)

    @property
    def _turned(self) -> bool:
        """Whether a page lies across the tile: one number for each row."""
        return self.side == "row" and not self._inner

    def _parts(self) -> tuple[tuple[Axis, ...], list[Any]]:
        """The axes of a page as a Value, and where in the page each piece lies."""
        everything = slice(None)
        kind = KINDS[self.side]
        if not self.shape:
            return (), [(everything, everything)]
        length = self.shape[0] if self.side == "all" else self.block
        first, last = (_ranges(cut) for cut in self._cuts)
        if not self._inner:
            place = Place.FIRST if self._turned else Place.SECOND
            return (Axis(length, place, kind),), [(everything, part) for part in last]
        axes = [Axis(size, Place.LISTED) for size in self.shape]
        axes[0] = Axis(length, Place.FIRST, kind)
        axes[-1] = Axis(self.shape[-1], Place.SAME if self.shape[-1] == 1 else Place.SECOND)
        parts = [
            (k, one, other)
            for one in first
            for k in range(math.prod(self._inner[:-1]))
            for other in last
        ]
        return tuple(axes), parts

    def _counts(self, axes: Sequence[Axis]) -> list[int]:
        return [
            axis.size
            if axis.place == Place.LISTED
            else (1 if axis.place == Place.SAME else len(self.pieces.cuts(axis)))
            for axis in axes
        ]


def _ranges(widths: Sequence[int]) -> list[slice]:
    edges = np.cumsum([0, *widths])
    if len(widths) == 1:
        return [slice(None)]
    return [slice(int(a), int(b)) for a, b in zip(edges, edges[1:])]
