"""Arrays of any rank inside a kernel: pieces of two dimensions, made when they are asked for.

A kernel computes on matrices, (sublanes, lanes) on a TPU, a block of threads on a GPU. A `Value` is
an array of a tile's program as the kernel holds it: of its axes at most two lie along those of a
matrix, the others are listed, one matrix for each index. Tokens (r, T, D) are T matrices (r, D);
their similarities (r, T, c, U) are T·U matrices (r, c), which is what the units of a device like.

An axis along which the array is the same everywhere, as it is along every axis of size 1, is not
there at all: a matrix has size 1 along it. A piece is computed when it is asked for, so what nobody
asks for costs nothing.

A device may have no room for long vectors: then an axis of an example's numbers is cut into equal
lengths, a piece is asked for one cut at a time, and whoever needs all of them asks in a loop.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST = 1024  # pieces of a Value where a device sets no other bound


class Place(IntEnum):
    """Where an axis of a Value is."""

    FIRST = 0  # along the first axis of every piece
    SECOND = 1  # along the second
    LISTED = 2  # a piece for every index
    SAME = 3  # nowhere: the pieces serve for every index


class Kind(IntEnum):
    """What an axis runs over. Where two meet in a matrix, the lesser one lies along FIRST."""

    ROW = 0  # the rows of the tile
    COL = 1  # its columns
    WIDE = 2  # something of an example: numbers of a vector, tokens


class Axis(NamedTuple):
    size: int
    place: Place  # SAME where the size is 1
    kind: Kind = Kind.WIDE


def placed(size: int, place: Place, kind: Kind = Kind.WIDE) -> Axis:
    """An axis that lies at `place`, unless there is nothing to lie there."""
    return Axis(size, Place.SAME if size == 1 else place, kind)


class Target(NamedTuple):
    """What a device asks of pieces.

    Attributes:
        name: of the implementation, for messages.
        width: into which lengths an axis of kind WIDE and this size is cut; together they may be
            longer than it. Whatever they hold beyond it is masked.
        least: along every axis of a product there are at least as many entries, else it is made of
            single multiplications. So is a product of integers.
        lacks: names of types that it does not read; they are stored in 32 bits.
        precision: what its products take in place of a `precision` of `lax.dot_general`.
        slices: whether a matrix is cut and joined at any place; else it is never cut into several.
        instead: how an operation is done that the device does not have, or has otherwise.
        most: pieces of an array at most: each is a part of the kernel's program.
        barrier: called between the reads and the writes of what is accumulated, if there is one.
    """

    name: str
    width: Callable[[int], int] = lambda size: size
    least: int = 1
    lacks: frozenset[str] = frozenset({"bool"})
    precision: Callable[[Any], Any] = lambda asked: asked
    slices: bool = True
    instead: Mapping[str, Callable[..., jax.Array]] = MappingProxyType({})
    most: int = MOST
    barrier: Callable[[], None] | None = None


Cut = tuple[Any, Any]  # which cut of the FIRST and which of the SECOND axis; 0 of one that is whole


class Piece:
    """A matrix, one for each cut, that is made when it is asked for.

    It does not depend on the cut of an axis that its Value does not have.

    Args:
        make: the matrix of a cut.
        parts: what it asks for.
        keep: whether it is made at the first call only, the same for every cut.
    """

    def __init__(
        self, make: Callable[[Cut], jax.Array], parts: Sequence["Piece"] = (), keep: bool = True
    ) -> None:
        self._make, self._parts, self._keep = make, parts, keep
        self._made: jax.Array | None = None

    def __call__(self, cut: Cut = (0, 0)) -> jax.Array:
        if self._made is not None:
            return self._made
        made = self._make(cut)
        if self._keep:
            self._made = made
        return made

    def settle(self) -> None:
        """Make what is kept of it and of what it asks for: in front of a loop, not inside."""
        if self._keep:
            self()
            return
        for part in self._parts:
            part.settle()


class Value(NamedTuple):
    """An array as a kernel holds it.

    Attributes:
        pieces: np.ndarray of Piece; its length along an axis is the size if LISTED, else 1. Each
            is a matrix, exactly as long as a cut along an axis in it and 1 where there is none;
            with no axis in it, it may be a scalar.
    """

    axes: tuple[Axis, ...]
    dtype: Any
    pieces: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)


class Pieces:
    """The operations on Values for one target; all are pure."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def constant(self, x: Any) -> Value:
        """A scalar."""
        piece = np.empty((), object)
        piece[()] = Piece(lambda _: x)
        return Value((), jnp.result_type(x), piece)

    def width(self, axis: Axis) -> int:
        """The length of the cuts of an axis inside the pieces."""
        if axis.kind != Kind.WIDE or axis.size == 1:
            return axis.size
        return self.target.width(axis.size)

    def cuts(self, axis: Axis) -> int:
        """How many there are."""
        return -(-axis.size // self.width(axis))

    def whole(self, axes: Sequence[Axis]) -> bool:
        """Whether no piece of a Value with these axes is cut."""
        return all(self.cuts(axis) == 1 for axis in axes if _inside(axis))

    def later(
        self,
        make: Callable[..., jax.Array],
        parts: Sequence[Any],
        axes: Sequence[Axis],
        of: Callable[[Cut], Cut] = lambda cut: cut,
    ) -> Piece:
        """The piece `make(*parts)` of a Value with `axes`; its cut needs cut `of` it of them."""
        return Piece(lambda cut: make(*(part(of(cut)) for part in parts)), parts, self.whole(axes))

    def _over_cuts(
        self,
        make: Callable[[Any], jax.Array],
        count: int,
        between: Callable[[Any, Any], Any],
        fill: Any,
        parts: Sequence[Piece],
    ) -> jax.Array:
        """`make` of every cut, folded.

        Args:
            parts: what `make` asks for.
        """
        if count == 1:
            return make(0)
        for part in parts:
            part.settle()
        like = jax.eval_shape(make, 0)
        return jax.lax.fori_loop(
            0,
            count,
            lambda k, total: between(total, make(jnp.asarray(k, jnp.int32))),
            jnp.full(like.shape, fill, like.dtype),
        )

    def _check_count(self, pieces: np.ndarray) -> None:
        if pieces.size > self.target.most:
            raise NotImplementedError(
                f"{self.target.name}: an array of the tile would be {pieces.size} matrices in the "
                f'kernel, and {self.target.most} is the most; impl="xla" has no such bound'
            )

    # Elementwise.

    def elementwise(
        self, make: Callable[..., jax.Array], values: Sequence[Value], dtype: Any
    ) -> Value:
        """`make` of arrays of one shape, entry by entry."""
        shape = np.broadcast_shapes(*(v.shape for v in values))
        values = [self._widened(v, shape) for v in values]
        axes = self._common(values)
        values = [self.arranged(v, axes) for v in values]
        counts = np.broadcast_shapes(*(v.pieces.shape for v in values))
        grids = [np.broadcast_to(v.pieces, counts) for v in values]
        pieces = np.empty(counts, object)
        self._check_count(pieces)
        for at in np.ndindex(counts):
            parts = [grid[at] for grid in grids]
            pieces[at] = self.later(lambda *xs: make(*_met(xs)), parts, axes)
        return Value(axes, dtype, pieces)

    def _widened(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A scalar, or an array with axes of size 1, as one of `shape`."""
        if not value.axes:
            return self.broadcast(value, shape, ())
        return self.broadcast(value, shape, range(len(shape)))

    def _common(self, values: Sequence[Value]) -> tuple[Axis, ...]:
        """The axes of an array that several are combined to."""
        axes = []
        for there in zip(*(v.axes for v in values)):
            used = [axis for axis in there if axis.place != Place.SAME]
            inside = [axis for axis in used if _inside(axis)]
            axes.append(min(inside or used or there, key=lambda axis: axis.kind))
        inside = [i for i, axis in enumerate(axes) if _inside(axis)]
        if len(inside) < 2:
            return tuple(axes)
        order = sorted(inside, key=lambda i: (axes[i].kind, i))
        sides = [i for i in order if axes[i].kind != Kind.WIDE]
        if len(order) > 2:  # of several wide axes the longest stays inside
            wide = sorted(set(order) - set(sides), key=lambda i: -axes[i].size)
            order = sorted((*sides, *wide)[:2], key=lambda i: (axes[i].kind, i))
        for i in inside:
            place = Place(order.index(i)) if i in order else Place.LISTED
            axes[i] = axes[i]._replace(place=place)
        return tuple(axes)

    def arranged(self, value: Value, like: Sequence[Axis]) -> Value:
        """`value` with its axes at the places of `like`; what is SAME stays so."""
        for i, (axis, goal) in enumerate(zip(value.axes, like)):
            recut = _inside(axis) and self.width(axis) != self.width(goal)
            if _inside(axis) and (recut or goal.place == Place.LISTED):
                value = self.listed(value, i)
        if any(
            {axis.place, goal.place} == {Place.FIRST, Place.SECOND}
            for axis, goal in zip(value.axes, like)
        ):
            swapped = {Place.FIRST: Place.SECOND, Place.SECOND: Place.FIRST}
            axes = tuple(a._replace(place=swapped.get(a.place, a.place)) for a in value.axes)
            turned = self._each(_transposed, value.pieces, axes, lambda cut: cut[::-1])
            value = Value(axes, value.dtype, turned)
        for i, (axis, goal) in enumerate(zip(value.axes, like)):
            if axis.place == Place.LISTED and _inside(goal):
                value = self.joined(value, i, goal)
        return value

    def _each(
        self,
        make: Callable[[Any], Any],
        pieces: Any,
        axes: Sequence[Axis],
        of: Callable[[Cut], Cut] = lambda cut: cut,
    ) -> np.ndarray:
        made = np.empty(pieces.shape, object)
        for at in np.ndindex(pieces.shape):
            made[at] = self.later(make, (pieces[at],), axes, of)
        return made

    def listed(self, value: Value, i: int) -> Value:
        """Axis i, inside the pieces, as a piece for every index."""
        axis = value.axes[i]
        place = int(axis.place)
        axes = _with(value.axes, i, place=Place.LISTED)

        def entry(index: int) -> np.ndarray:
            k, at = divmod(index, self.width(axis))
            return self._each(
                lambda x: self._section(x, place, at, 1),
                value.pieces,
                axes,
                lambda cut: _at(cut, place, k),
            )

        entries = [entry(index) for index in range(axis.size)]
        return Value(axes, value.dtype, np.concatenate(entries, axis=i))

    def _section(self, x: jax.Array, place: int, start: int, size: int) -> jax.Array:
        """Entries start to start + size of a matrix along an axis; in halves, or one, by masks."""
        if size == x.shape[place]:
            return x
        if self.target.slices:
            return jax.lax.slice_in_dim(x, start, start + size, axis=place)
        if size > 1:
            halves = jnp.split(_as_numbers(x), x.shape[place] // size, axis=place)
            return _as(x.dtype, halves[start // size])
        here = jax.lax.broadcasted_iota(jnp.int32, x.shape, place) == start
        found = jnp.where(here, _as_numbers(x), 0)
        return _as(x.dtype, jnp.sum(found, axis=place, keepdims=True, dtype=found.dtype))

    def joined(self, value: Value, i: int, axis: Axis) -> Value:
        """Axis i, LISTED, along the pieces as `axis`, where none is."""
        axes = (*value.axes[:i], axis, *value.axes[i + 1 :])
        lines = np.moveaxis(value.pieces, i, -1)
        self._check_count(lines)
        pieces = np.empty(lines.shape[:-1], object)
        for at in np.ndindex(*pieces.shape):
            parts = [(part, axis._replace(size=1)) for part in lines[at]]
            pieces[at] = self._stacked(parts, axis, axes)
        return Value(axes, value.dtype, np.expand_dims(pieces, i))

    def _stacked(
        self, parts: Sequence[tuple[Piece, Axis]], axis: Axis, axes: Sequence[Axis]
    ) -> Piece:
        """Pieces side by side along an axis inside; each with what that axis is in it."""
        pieces = [part for part, _ in parts]
        if self.target.slices:
            missing = self.width(axis) - axis.size
            return self.later(lambda *xs: _stacked(xs, int(axis.place), missing), pieces, axes)
        return Piece(partial(self._selected, parts, axis), pieces, self.whole(axes))

    def _vectors_join(self, sizes: Sequence[int], axis: Axis) -> bool:
        """Whether vectors of these sizes are joined to `axis` without taking them apart."""
        start, goal = 0, self.width(axis)
        for there in (axis._replace(size=size) for size in sizes):
            width = self.width(there)
            doubles = goal % width == 0 and (goal // width).bit_count() == 1
            if start % width or not (doubles and self.cuts(there) == 1 or width == goal):
                return False
            start += there.size
        return True

    def _selected(self, parts: Sequence[tuple[Piece, Axis]], axis: Axis, cut: Cut) -> jax.Array:
        """A cut of the pieces side by side, by masks."""
        place, goal = int(axis.place), self.width(axis)
        shape = (1, goal) if place else (goal, 1)
        at = jax.lax.broadcasted_iota(jnp.int32, shape, place) + cut[place] * goal
        total: Any = None
        start, dtype = 0, None
        for part, there in parts:
            k: Any = 0
            if self.cuts(there) > 1:
                k = jnp.clip(cut[place] - start // goal, 0, self.cuts(there) - 1)
            x = jnp.asarray(part(_at(cut, place, k)))
            dtype, x = x.dtype, _as_numbers(x)
            if there.size > 1:
                x = _spread(x, place, start % goal, goal)
            total = x if total is None else jnp.where(at >= start, x, total)
            start += there.size
        lengths = np.broadcast_shapes(np.shape(total), shape)
        return _as(dtype, jnp.broadcast_to(total, lengths))

    def _whole(self, value: Value, axes: Sequence[Axis]) -> Value:
        """`value`, arranged like `axes`, repeated along those in the pieces where it is SAME."""
        shape = [1, 1]
        for axis in axes:
            if _inside(axis):
                shape[axis.place] = self.width(axis)
        pieces = self._each(partial(_repeated, shape=tuple(shape)), value.pieces, axes)
        whole = tuple(goal if _inside(goal) else axis for axis, goal in zip(value.axes, axes))
        return Value(whole, value.dtype, pieces)

    # Shapes.

    def broadcast(self, value: Value, shape: tuple[int, ...], at: Sequence[int]) -> Value:
        """`value` as an array of `shape`, its axes those of the numbers `at`; the rest are new."""
        axes = [Axis(size, Place.SAME) for size in shape]
        counts = [1] * len(shape)
        for axis, count, i in zip(value.axes, value.pieces.shape, at):
            axes[i] = axis._replace(size=shape[i])
            counts[i] = count
        return Value(tuple(axes), value.dtype, value.pieces.reshape(counts))

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        axes = tuple(value.axes[i] for i in order)
        return Value(axes, value.dtype, value.pieces.transpose(order))

    def reshape(self, value: Value, shape: tuple[int, ...]) -> Value:
        """`value` with axes of size 1 added or taken away."""
        if tuple(s for s in shape if s != 1) != tuple(s for s in value.shape if s != 1):
            raise NotImplementedError(
                f"{self.target.name}: reshape {value.shape} to {shape}: a kernel only adds or "
                "takes away axes of size 1"
            )
        value = self._only(value, [i for i, size in enumerate(value.shape) if size != 1])
        return self.broadcast(value, shape, [i for i, size in enumerate(shape) if size != 1])

    def _only(self, value: Value, keep: Sequence[int]) -> Value:
        """`value` with some of its axes; the others have size 1."""
        axes = tuple(value.axes[i] for i in keep)
        counts = [value.pieces.shape[i] for i in keep]
        return Value(axes, value.dtype, value.pieces.reshape(counts))

    # Reductions.

    def reduce(
        self,
        value: Value,
        over: Sequence[int],
        within: Callable[[jax.Array, int], jax.Array],
        between: Callable[[jax.Array, jax.Array], jax.Array],
        fill: Any,
        repeated: Callable[[jax.Array, int], jax.Array],
    ) -> Value:
        """Fold the axes `over`.

        Args:
            within: fold a matrix along an axis, which is kept with size 1.
            between: fold two matrices.
            fill: what changes nothing.
            repeated: a matrix folded with as many of itself.
        """
        for i in over:
            axis = value.axes[i]
            axes = _with(value.axes, i, place=Place.SAME, size=1)
            if _inside(axis):
                value = self.masked(value, i, fill)
                folded = self._along(value, i, within, between, fill)
            elif axis.place == Place.SAME:
                folded = self._each(_second(repeated, axis.size), value.pieces, value.axes)
            else:
                folded = value.pieces
            rest = [k for k in range(folded.ndim) if k != i]
            lines = folded.transpose(*rest, i)
            pieces = np.empty(lines.shape[:-1], object)
            for at in np.ndindex(*lines.shape[:-1]):
                pieces[at] = self.later(lambda *xs: _chained(between, xs), list(lines[at]), axes)
            shape = list(folded.shape)
            shape[i] = 1
            value = Value(axes, value.dtype, pieces.reshape(shape))
        return self._only(value, [i for i in range(len(value.axes)) if i not in set(over)])

    def _along(
        self,
        value: Value,
        i: int,
        within: Callable[[jax.Array, int], jax.Array],
        between: Callable[[jax.Array, jax.Array], jax.Array],
        fill: Any,
    ) -> np.ndarray:
        """Every piece folded along axis i, which is inside."""
        place, count = int(value.axes[i].place), self.cuts(value.axes[i])
        keep = self.whole(value.axes[:i] + value.axes[i + 1 :])

        def folded(part: Piece, cut: Cut) -> jax.Array:
            def one(k: Any) -> jax.Array:
                return within(part(_at(cut, place, k)), place)

            return self._over_cuts(one, count, between, fill, [part])

        pieces = np.empty(value.pieces.shape, object)
        for at in np.ndindex(*pieces.shape):
            part = value.pieces[at]
            pieces[at] = Piece(partial(folded, part), [part], keep)
        return pieces

    def masked(self, value: Value, i: int, fill: Any) -> Value:
        """`value` with `fill` where its pieces reach beyond the end of axis i."""
        axis, width = value.axes[i], self.width(value.axes[i])
        place = int(axis.place)
        if self.cuts(axis) * width == axis.size:
            return value

        def ended(part: Piece, cut: Cut) -> jax.Array:
            x = part(cut)
            at = jax.lax.broadcasted_iota(jnp.int32, x.shape, place) + cut[place] * width
            return jnp.where(at < axis.size, x, jnp.full_like(x, fill))

        pieces = np.empty(value.pieces.shape, object)
        for at in np.ndindex(*pieces.shape):
            part = value.pieces[at]
            pieces[at] = Piece(partial(ended, part), [part], self.whole(value.axes))
        return Value(value.axes, value.dtype, pieces)

    # Products.

    def dot(self, left: Value, right: Value, dims: Any, precision: Any, dtype: Any) -> Value:
        """`lax.dot_general`."""
        (sum_l, sum_r), (batch_l, batch_r) = dims
        inside = [
            (i, k) for i, k in zip(sum_l, sum_r) if _inside(left.axes[i]) or _inside(right.axes[k])
        ]
        if (
            jnp.issubdtype(dtype, jnp.floating)
            and len(inside) == 1
            and all(_inside(v.axes[i]) for v, i in zip((left, right), inside[0]))
            and self.width(left.axes[inside[0][0]]) == self.width(right.axes[inside[0][1]])
            and not any(_inside(left.axes[i]) for i in batch_l)
            and not any(_inside(right.axes[i]) for i in batch_r)
            and all(
                v.axes[i].place != Place.SAME
                for v, over in ((left, sum_l), (right, sum_r))
                for i in over
            )
            and self._large_enough(left, right, inside[0])
        ):
            return self._product(left, right, dims, inside[0], precision, dtype)
        return self._multiplied(left, right, dims, dtype)

    def _large_enough(self, left: Value, right: Value, over: tuple[int, int]) -> bool:
        """Whether the device's product units take pieces of these sizes."""
        sizes = [self.width(left.axes[over[0]])]
        for value, i in zip((left, right), over):
            free = [a for k, a in enumerate(value.axes) if _inside(a) and k != i]
            sizes.append(self.width(free[0]) if free else 1)
        return min(sizes) >= self.target.least

    def _product(
        self,
        left: Value,
        right: Value,
        dims: Any,
        over: tuple[int, int],
        precision: Any,
        dtype: Any,
    ) -> Value:
        (sum_l, sum_r), (batch_l, batch_r) = dims
        left, right = self.masked(left, over[0], 0), self.masked(right, over[1], 0)
        free_l = [i for i in range(len(left.axes)) if i not in (*sum_l, *batch_l)]
        free_r = [i for i in range(len(right.axes)) if i not in (*sum_r, *batch_r)]
        kinds = [
            min((v.axes[i].kind for i in free if _inside(v.axes[i])), default=Kind.WIDE)
            for v, free in ((left, free_l), (right, free_r))
        ]
        swapped = kinds[1] < kinds[0]  # the lesser kind lies along FIRST
        along = [int(v.axes[i].place) for v, i in zip((left, right), over)]
        dims_inside = along[::-1] if swapped else along

        narrowed = NARROWED.get(getattr(precision, "name", ""))
        precision = None if narrowed else self.target.precision(precision)

        def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
            if narrowed:
                a, b = a.astype(narrowed), b.astype(narrowed)
            if swapped:
                a, b = b, a
            return _matrix_product(a, b, dims_inside, precision, dtype)

        lines_l = left.pieces.transpose(*batch_l, *free_l, *sum_l)
        lines_r = right.pieces.transpose(*batch_r, *free_r, *sum_r)
        b, n, m = len(batch_l), len(free_l), len(free_r)
        batch = np.broadcast_shapes(lines_l.shape[:b], lines_r.shape[:b])
        shape = (*batch, *lines_l.shape[b : b + n], *lines_r.shape[b : b + m])
        lines_l = np.broadcast_to(lines_l, batch + lines_l.shape[b:])
        lines_r = np.broadcast_to(lines_r, batch + lines_r.shape[b:])
        pieces = np.empty(shape, object)

        count = self.cuts(left.axes[over[0]])

        def summed(xs: Any, ys: Any, cut: Cut) -> jax.Array:
            free = cut[::-1] if swapped else cut

            def one(k: Any) -> jax.Array:
                of = [_at((other, other), place, k) for other, place in zip(free, along)]
                return _chained(jnp.add, [multiply(x(of[0]), y(of[1])) for x, y in zip(xs, ys)])

            return self._over_cuts(one, count, jnp.add, 0, [*xs, *ys])

        def axis_of(axis: Axis, is_left: bool) -> Axis:
            if not _inside(axis):
                return axis
            return axis._replace(place=Place(int(is_left == swapped)))

        axes = (
            *(_either(left.axes[i], right.axes[k]) for i, k in zip(batch_l, batch_r)),
            *(axis_of(left.axes[i], True) for i in free_l),
            *(axis_of(right.axes[i], False) for i in free_r),
        )
        self._check_count(pieces)
        for at in np.ndindex(*shape):
            xs = lines_l[at[: b + n]].reshape(-1)
            ys = lines_r[(*at[:b], *at[b + n :])].reshape(-1)
            pieces[at] = Piece(partial(summed, xs, ys), [*xs, *ys], self.whole(axes))
        return Value(tuple(axes), dtype, pieces)

    def _multiplied(self, left: Value, right: Value, dims: Any, dtype: Any) -> Value:
        """A product as a sum of elementwise products."""
        (sum_l, sum_r), (batch_l, batch_r) = dims
        free_l = [i for i in range(len(left.axes)) if i not in (*sum_l, *batch_l)]
        free_r = [i for i in range(len(right.axes)) if i not in (*sum_r, *batch_r)]
        b, n, m, s = len(batch_l), len(free_l), len(free_r), len(sum_l)
        left = self.transpose(left, (*batch_l, *free_l, *sum_l))
        right = self.transpose(right, (*batch_r, *free_r, *sum_r))
        shape = (*left.shape[: b + n], *right.shape[b : b + m], *left.shape[b + n :])
        left = self.broadcast(left, shape, (*range(b + n), *range(b + n + m, b + n + m + s)))
        right = self.broadcast(right, shape, (*range(b), *range(b + n, b + n + m + s)))
        both = self.elementwise(
            lambda x, y: x.astype(dtype) * y.astype(dtype), (left, right), jnp.dtype(dtype)
        )
        return self.sum(both, range(b + n + m, b + n + m + s))

    def sum(self, value: Value, over: Sequence[int]) -> Value:
        return self.reduce(
            value,
            list(over),
            lambda x, place: jnp.sum(x, axis=place, keepdims=True, dtype=x.dtype),
            jnp.add,
            0,
            lambda x, n: x * jnp.asarray(n, x.dtype),
        )

    # Parts of an axis.

    def slice(self, value: Value, starts: Any, limits: Any, strides: Any) -> Value:
        """`lax.slice`."""
        for i, (axis, start, stop, stride) in enumerate(
            zip(value.axes, starts, limits, strides or (1,) * len(starts))
        ):
            size = len(range(start, stop, stride))
            if size == axis.size:
                continue
            if axis.place == Place.SAME:
                value = value._replace(axes=_with(value.axes, i, size=size))
                continue
            if _inside(axis) and (axis.kind != Kind.WIDE or stride > 1 or size == 1):
                value = self.listed(value, i)
            if value.axes[i].place == Place.LISTED:
                taken = np.take(value.pieces, range(start, stop, stride), axis=i)
                left = placed(size, Place.LISTED, axis.kind)
                value = Value((*value.axes[:i], left, *value.axes[i + 1 :]), value.dtype, taken)
            else:
                value = self._cut(value, i, start, stop)
        return value

    def _cut(self, value: Value, i: int, start: int, stop: int) -> Value:
        """Entries start to stop of axis i inside the pieces."""
        axis = value.axes[i]
        place, width = int(axis.place), self.width(axis)
        left = axis._replace(size=stop - start)
        goal = self.width(left)
        first, at = divmod(start, width)
        if not (goal == width and not at):
            halves = self.target.slices or not (width % goal or at % goal)
            if not halves or at + goal > width:
                entries = self.listed(value, i)
                taken = np.take(entries.pieces, range(start, stop), axis=i)
                axes = _with(entries.axes, i, size=stop - start)
                return self.joined(Value(axes, value.dtype, taken), i, left)
        axes = (*value.axes[:i], left, *value.axes[i + 1 :])
        pieces = self._each(
            lambda x: self._section(x, place, at, goal),
            value.pieces,
            axes,
            lambda cut: _at(cut, place, cut[place] + first),
        )
        return Value(axes, value.dtype, pieces)

    def concatenate(self, values: Sequence[Value], i: int) -> Value:
        """`lax.concatenate`."""
        values = [v for v in values if v.axes[i].size] or values[:1]
        if len(values) == 1:
            return values[0]
        size = sum(v.axes[i].size for v in values)
        axes = self._common([v._replace(axes=_with(v.axes, i, size=size)) for v in values])
        if not _inside(axes[i]):
            axes = _with(axes, i, place=Place.LISTED)
            values = [self._full(v, i) for v in values]
        axis = axes[i]
        if _inside(axis) and not (
            self.target.slices or self._vectors_join([v.axes[i].size for v in values], axis)
        ):
            apart = [self._full(self.listed(v, i) if _inside(v.axes[i]) else v, i) for v in values]
            return self.joined(
                self._listed_join(apart, _with(axes, i, place=Place.LISTED), i), i, axis
            )
        own = [_with(axes, i, size=v.axes[i].size) for v in values]
        spread = [self._whole(self.arranged(v, like), like) for v, like in zip(values, own)]
        if not _inside(axis):
            return self._listed_join(spread, axes, i)
        counts = np.broadcast_shapes(*(v.pieces.shape for v in spread))
        grids = [np.broadcast_to(v.pieces, counts) for v in spread]
        pieces = np.empty(counts, object)
        for at in np.ndindex(*counts):
            parts: list[Any] = [(grid[at], like[i]) for grid, like in zip(grids, own)]
            pieces[at] = self._stacked(parts, axis, axes)
        return Value(axes, spread[0].dtype, pieces)

    def _listed_join(self, values: Sequence[Value], axes: tuple[Axis, ...], i: int) -> Value:
        """Values side by side along axis i, LISTED; `axes` of the whole."""
        spread = [
            self._whole(self.arranged(v, like), like)
            for v in values
            for like in [_with(axes, i, size=v.axes[i].size)]
        ]
        counts = np.broadcast_shapes(*(_one(v.pieces.shape, i) for v in spread))
        grids = [
            np.broadcast_to(v.pieces, (*counts[:i], v.pieces.shape[i], *counts[i + 1 :]))
            for v in spread
        ]
        return Value(axes, spread[0].dtype, np.concatenate(grids, axis=i))

    def _full(self, value: Value, i: int) -> Value:
        """`value` with axis i listed if it was SAME."""
        axis = value.axes[i]
        if axis.place != Place.SAME:
            return value
        pieces = np.repeat(value.pieces, axis.size, axis=i)
        return Value(_with(value.axes, i, place=Place.LISTED), value.dtype, pieces)

    def pad(self, value: Value, fill: Value, config: Sequence[tuple[int, int, int]]) -> Value:
        """`lax.pad`."""

        def some(size: int) -> list[Value]:
            shape = (*value.shape[:i], size, *value.shape[i + 1 :])
            return [self.broadcast(fill, shape, ())] if size > 0 else []

        for i, (low, high, interior) in enumerate(config):
            if interior:
                entries = self._entries(value, i)
                apart = [part for entry in entries for part in (*some(interior), entry)]
                value = self.concatenate(apart[1:], i)
            if low < 0 or high < 0:
                value = self._part(value, i, max(0, -low), value.shape[i] + min(0, high))
            if low > 0 or high > 0:
                value = self.concatenate([*some(low), value, *some(high)], i)
        return value

    def _part(self, value: Value, i: int, start: int, stop: int) -> Value:
        """Entries start to stop of axis i."""
        starts = [start if k == i else 0 for k in range(len(value.axes))]
        stops = [stop if k == i else size for k, size in enumerate(value.shape)]
        return self.slice(value, starts, stops, None)

    def split(self, value: Value, sizes: Sequence[int], i: int) -> list[Value]:
        """`lax.split` along axis i."""
        stops = list(itertools.accumulate(sizes))
        return [self._part(value, i, stop - size, stop) for size, stop in zip(sizes, stops)]

    def _entries(self, value: Value, i: int) -> list[Value]:
        """Every entry of axis i, with size 1 along it."""
        value = self.listed(value, i) if _inside(value.axes[i]) else value
        return self.split(value, [1] * value.shape[i], i)

    def stack(self, values: Sequence[Value], i: int) -> Value:
        """`lax.stack` along a new axis i."""
        shape = values[0].shape
        return self.concatenate([self.reshape(v, (*shape[:i], 1, *shape[i:])) for v in values], i)

    def unstack(self, value: Value, i: int) -> list[Value]:
        """`lax.unstack` of axis i."""
        return [self.reshape(v, _without(value.shape, i)) for v in self._entries(value, i)]

    def iota(self, dtype: Any, shape: tuple[int, ...], i: int) -> Value:
        """`lax.iota` along axis i."""
        if shape[i] == 1:
            return self.broadcast(self.constant(np.zeros((), dtype)), shape, ())
        axes = tuple(placed(s, Place.SECOND if k == i else Place.SAME) for k, s in enumerate(shape))
        width = self.width(axes[i])

        def counted(cut: Cut) -> jax.Array:
            at = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1) + cut[1] * width
            return at.astype(dtype)

        pieces = np.empty([1] * len(shape), object)
        pieces[(0,) * len(shape)] = Piece(counted, keep=self.whole(axes))
        return Value(axes, jnp.dtype(dtype), pieces)


def _at(cut: Cut, place: int, k: Any) -> Cut:
    """`cut`, but k along one axis."""
    return (cut[0], k) if place else (k, cut[1])


def _second(function: Callable[[Any, int], Any], argument: int) -> Callable[[Any], Any]:
    return lambda x: function(x, argument)


def _inside(axis: Axis) -> bool:
    return axis.place in (Place.FIRST, Place.SECOND)


def _either(a: Axis, b: Axis) -> Axis:
    return b if a.place == Place.SAME else a


def _one(shape: tuple[int, ...], i: int) -> tuple[int, ...]:
    return (*shape[:i], 1, *shape[i + 1 :])


def _without(shape: tuple[int, ...], i: int) -> tuple[int, ...]:
    return (*shape[:i], *shape[i + 1 :])


def _with(axes: Sequence[Axis], i: int, **changes: Any) -> tuple[Axis, ...]:
    return tuple(axis._replace(**changes) if k == i else axis for k, axis in enumerate(axes))


def _through_numbers(change: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`change(x)`; of flags by way of numbers, for devices do not move flags about."""
    if jnp.result_type(x) != jnp.bool_:
        return change(x)
    return change(jnp.asarray(x).astype(jnp.int32)) != 0


def _repeated(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if np.shape(x) == shape:
        return x
    return _through_numbers(lambda x: jnp.broadcast_to(x, shape), x)


def _met(xs: Sequence[jax.Array]) -> list[jax.Array]:
    """Matrices; flags among them have the shape of all."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in xs))
    return [
        _repeated(x, shape) if jnp.result_type(x) == jnp.bool_ and np.ndim(x) else x for x in xs
    ]


def _transposed(x: jax.Array) -> jax.Array:
    return _through_numbers(jnp.transpose, x) if np.ndim(x) else x


def _chained(between: Callable[[Any, Any], Any], xs: Sequence[Any]) -> Any:
    total = xs[0]
    for x in xs[1:]:
        total = between(total, x)
    return total


def _stacked(xs: Sequence[jax.Array], place: int, missing: int) -> jax.Array:
    """Matrices side by side along one axis, with zeros at the end."""
    dtype = jnp.result_type(xs[0])
    parts = [jnp.asarray(x if np.ndim(x) else jnp.full((1, 1), x)) for x in xs]
    if dtype == jnp.bool_:
        parts = [x.astype(jnp.int32) for x in parts]
    if missing:
        shape = list(parts[0].shape)
        shape[place] = missing
        parts.append(jnp.zeros(shape, parts[0].dtype))
    stacked = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=place)
    return stacked != 0 if dtype == jnp.bool_ else stacked


def _as_numbers(x: jax.Array) -> jax.Array:
    """Flags as numbers, for devices do not move flags about."""
    return x.astype(jnp.int32) if x.dtype == jnp.bool_ else x


def _as(dtype: Any, x: jax.Array) -> jax.Array:
    return x != 0 if dtype == jnp.bool_ else x


def _spread(x: jax.Array, place: int, start: int, width: int) -> jax.Array:
    """A matrix as `width` entries along an axis, from `start` on; zero elsewhere.

    Its length is doubled again and again: a pair is joined along a new last axis, as a GPU does it.
    """
    if place == 0:
        return _spread(x.T, 1, start, width).T
    while x.shape[1] < width:
        nothing = jnp.zeros_like(x)
        pair = (nothing, x) if start // x.shape[1] % 2 else (x, nothing)
        joined = jnp.concatenate([half[:, :, None] for half in pair], axis=2)
        x = joined.transpose(0, 2, 1).reshape(x.shape[0], 2 * x.shape[1])
    return x


NARROWED = {"BF16_BF16_F32": jnp.bfloat16, "F16_F16_F32": jnp.float16}


def _matrix_product(
    a: jax.Array, b: jax.Array, along: Sequence[int], precision: Any, dtype: Any
) -> jax.Array:
    """The product of two matrices over the axes `along`, added up in float32 at least."""
    common = jnp.promote_types(a.dtype, b.dtype)
    a, b = a.astype(common), b.astype(common)
    if common.itemsize < 4:
        precision = None  # their products are exact
    dims = (((along[0],), (along[1],)), ((), ()))
    wide = jnp.promote_types(dtype, jnp.float32)
    product = jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type=wide)
    return product.astype(dtype)
