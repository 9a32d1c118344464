"""Arrays of any rank inside a kernel: pieces of two dimensions, made when they are asked for.

A kernel computes on matrices, (sublanes, lanes) on a TPU, a block of threads on a GPU. A `Value` is
an array of a tile's program as the kernel holds it: of its axes at most two lie along those of a
matrix, the others are listed, one matrix for each index. Tokens (r, T, D) are T matrices (r, D);
their similarities (r, T, c, U) are T·U matrices (r, c), which is what the units of a device like.

An axis along which the array is the same everywhere is not there at all: a matrix has size 1 along
it. A piece is computed when it is asked for, so what nobody asks for costs nothing.
"""

import itertools
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST = 1024  # pieces of a Value: each is a part of the kernel's program


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
    place: Place
    kind: Kind = Kind.WIDE


class Target(NamedTuple):
    """What a device asks of pieces.

    Attributes:
        name: of the implementation, for messages.
        widths: into which lengths an axis of kind WIDE and this size is cut along a piece; together
            they may be longer than it. Whatever they hold beyond it is masked.
        recompute: whether a piece with a WIDE axis is made anew each time it is asked for, because
            it would take registers until then.
        least: along every axis of a product there are at least as many entries, else it is made of
            single multiplications.
    """

    name: str
    widths: Callable[[int], tuple[int, ...]] = lambda size: (size,)
    recompute: bool = False
    least: int = 1


class Piece:
    """A matrix that is made at the first call."""

    def __init__(self, make: Callable[[], jax.Array], keep: bool = True) -> None:
        self._make, self._keep = make, keep
        self._made: jax.Array | None = None

    def __call__(self) -> jax.Array:
        if self._made is not None:
            return self._made
        made = self._make()
        if self._keep:
            self._made = made
        return made


class Value(NamedTuple):
    """An array as a kernel holds it."""

    axes: tuple[Axis, ...]
    dtype: Any
    pieces: (
        np.ndarray
    )  # of Piece; along an axis its size if LISTED, its cuts if in the pieces, or 1

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    def where(self, place: Place) -> int | None:
        """The axis at a place, if there is one."""
        return next((i for i, axis in enumerate(self.axes) if axis.place == place), None)


class Pieces:
    """The operations on Values for one target; all are pure."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def constant(self, x: Any) -> Value:
        """A scalar."""
        piece = np.empty((), object)
        piece[()] = Piece(lambda: x)
        return Value((), jnp.result_type(x), piece)

    def cuts(self, axis: Axis) -> tuple[int, ...]:
        """The lengths into which an axis inside the pieces is cut."""
        return self.target.widths(axis.size) if axis.kind == Kind.WIDE else (axis.size,)

    def later(self, make: Callable[..., jax.Array], parts: Sequence[Any], wide: bool) -> Piece:
        """The piece `make(*parts)`."""
        return Piece(
            lambda: make(*(part() for part in parts)), keep=not (wide and self.target.recompute)
        )

    def _check_count(self, pieces: np.ndarray) -> None:
        if pieces.size > MOST:
            raise NotImplementedError(
                f"{self.target.name}: an array of the tile would be {pieces.size} matrices in the "
                f'kernel, and {MOST} is the most; impl="xla" has no such bound'
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
        wide = _is_wide(axes)
        pieces = np.empty(counts, object)
        self._check_count(pieces)
        for at in np.ndindex(counts):
            parts = [grid[at] for grid in grids]
            pieces[at] = self.later(lambda *xs: make(*_met(xs)), parts, wide)
        return Value(axes, dtype, pieces)

    def _widened(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A scalar, or an array with axes of size 1, as one of `shape`."""
        if not value.axes:
            return self.broadcast(value, shape, ())
        axes = tuple(
            axis if axis.size == size else Axis(size, Place.SAME)
            for axis, size in zip(value.axes, shape, strict=True)
        )
        return value._replace(axes=axes)

    def _common(self, values: Sequence[Value]) -> tuple[Axis, ...]:
        """The axes of an array that several are combined to."""
        axes = []
        for there in zip(*(v.axes for v in values)):
            used = [axis for axis in there if axis.place != Place.SAME]
            inside = [axis for axis in used if axis.place != Place.LISTED]
            axes.append((inside or used or list(there))[0])
        inside = [i for i, a in enumerate(axes) if a.place in (Place.FIRST, Place.SECOND)]
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
            if axis.place in (Place.FIRST, Place.SECOND) and goal.place == Place.LISTED:
                value = self.listed(value, i)
        moved = {
            i: goal.place
            for i, (axis, goal) in enumerate(zip(value.axes, like))
            if axis.place != goal.place and {axis.place, goal.place} == {Place.FIRST, Place.SECOND}
        }
        if moved:
            swapped = {Place.FIRST: Place.SECOND, Place.SECOND: Place.FIRST}
            axes = tuple(a._replace(place=swapped.get(a.place, a.place)) for a in value.axes)
            wide = _is_wide(axes)
            value = Value(axes, value.dtype, self._each(_transposed, value.pieces, wide))
        for i, (axis, goal) in enumerate(zip(value.axes, like)):
            if axis.place == Place.LISTED and goal.place in (Place.FIRST, Place.SECOND):
                value = self.joined(value, i, goal.place)
        return value

    def _each(self, make: Callable[[Any], Any], pieces: Any, wide: bool) -> np.ndarray:
        made = np.empty(pieces.shape, object)
        for at in np.ndindex(pieces.shape):
            made[at] = self.later(make, (pieces[at],), wide)
        return made

    def listed(self, value: Value, i: int) -> Value:
        """Axis i, inside the pieces, as a piece for every index."""
        axis = value.axes[i]
        parts = []
        for index in range(axis.size):
            cut, at = 0, index
            for width in self.cuts(axis):
                if at < width:
                    break
                cut, at = cut + 1, at - width
            taken = np.take(value.pieces, [cut], axis=i)

            def entry(x: jax.Array, at: int = at) -> jax.Array:
                return x[at : at + 1] if axis.place == Place.FIRST else x[:, at : at + 1]

            parts.append(self._each(entry, taken, False))
        axes = _with(value.axes, i, place=Place.LISTED)
        return Value(axes, value.dtype, np.concatenate(parts, axis=i))

    def joined(self, value: Value, i: int, place: Place) -> Value:
        """Axis i, LISTED, along the pieces at `place`, where no axis is."""
        axis = value.axes[i]._replace(place=place)
        counts, start = [], 0
        for width in self.cuts(axis):
            stop = min(start + width, axis.size)
            taken = np.take(value.pieces, range(start, stop), axis=i)
            counts.append((taken, width - (stop - start)))
            start = stop
        shape = list(value.pieces.shape)
        shape[i] = len(counts)
        pieces = np.empty(shape, object)
        for at in np.ndindex(*shape):
            taken, missing = counts[at[i]]
            parts = [taken[(*at[:i], k, *at[i + 1 :])] for k in range(taken.shape[i])]

            def together(*xs: jax.Array, missing: int = missing) -> jax.Array:
                return _stacked(xs, int(place), missing)

            pieces[at] = self.later(together, parts, True)
        return Value(_with(value.axes, i, place=place), value.dtype, pieces)

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
        left = [axis for axis in value.axes if axis.size != 1]
        value = self.reduced_units(value)
        it = iter(zip(left, value.pieces.shape))
        axes, counts = [], []
        for size in shape:
            axis, count = (Axis(1, Place.SAME), 1) if size == 1 else next(it)
            axes.append(axis)
            counts.append(count)
        return Value(tuple(axes), value.dtype, value.pieces.reshape(counts))

    def reduced_units(self, value: Value) -> Value:
        """`value` without its axes of size 1."""
        keep = [i for i, axis in enumerate(value.axes) if axis.size != 1]
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
            if axis.place in (Place.FIRST, Place.SECOND):
                value = self.masked(value, i, fill)
                folded = self._each(_second(within, int(axis.place)), value.pieces, False)
            elif axis.place == Place.SAME:
                folded = self._each(_second(repeated, axis.size), value.pieces, False)
            else:
                folded = value.pieces
            rest = [k for k in range(folded.ndim) if k != i]
            lines = folded.transpose(*rest, i)
            pieces = np.empty(lines.shape[:-1], object)
            for at in np.ndindex(*lines.shape[:-1]):
                wide = _is_wide(value.axes[:i] + value.axes[i + 1 :])
                pieces[at] = self.later(lambda *xs: _chained(between, xs), list(lines[at]), wide)
            shape = list(folded.shape)
            shape[i] = 1
            axes = _with(value.axes, i, place=Place.SAME, size=1)
            value = Value(axes, value.dtype, pieces.reshape(shape))
        keep = [i for i in range(len(value.axes)) if i not in set(over)]
        axes = tuple(value.axes[i] for i in keep)
        return Value(axes, value.dtype, value.pieces.reshape([value.pieces.shape[i] for i in keep]))

    def masked(self, value: Value, i: int, fill: Any) -> Value:
        """`value` with `fill` where its pieces reach beyond the end of axis i."""
        axis = value.axes[i]
        cuts = self.cuts(axis)
        beyond = sum(cuts) - axis.size
        if not beyond:
            return value
        pieces = value.pieces.copy()
        last = np.take(pieces, [-1], axis=i)
        length = cuts[-1] - beyond

        def end(x: jax.Array) -> jax.Array:
            at = jax.lax.broadcasted_iota(jnp.int32, x.shape, int(axis.place))
            return jnp.where(at < length, x, jnp.full_like(x, fill))

        index = [slice(None)] * pieces.ndim
        index[i] = slice(-1, None)
        pieces[tuple(index)] = self._each(end, last, True)
        return Value(value.axes, value.dtype, pieces)

    # Products.

    def dot(self, left: Value, right: Value, dims: Any, precision: Any, dtype: Any) -> Value:
        """`lax.dot_general`."""
        (sum_l, sum_r), (batch_l, batch_r) = dims
        inside = [
            (i, k) for i, k in zip(sum_l, sum_r) if _inside(left.axes[i]) or _inside(right.axes[k])
        ]
        if (
            len(inside) == 1
            and all(_inside(v.axes[i]) for v, i in zip((left, right), inside[0]))
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
        if self.target.least == 1:
            return True
        sizes = [min(self.cuts(left.axes[over[0]]))]
        for value, i in zip((left, right), over):
            free = [a for k, a in enumerate(value.axes) if _inside(a) and k != i]
            sizes.append(min(self.cuts(free[0])) if free else 1)
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
        if sum(self.cuts(left.axes[over[0]])) > left.axes[over[0]].size:
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

        def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
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

        def summed(*xs: jax.Array) -> jax.Array:
            half = len(xs) // 2
            return _chained(jnp.add, [multiply(x, y) for x, y in zip(xs[:half], xs[half:])])

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
            pieces[at] = self.later(summed, [*xs, *ys], _is_wide(axes))
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
            lambda x, place: jnp.sum(x, axis=place, keepdims=True),
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
            if _inside(axis):
                value = self.listed(value, i) if axis.kind != Kind.WIDE or stride > 1 else value
            if value.axes[i].place == Place.LISTED:
                taken = np.take(value.pieces, range(start, stop, stride), axis=i)
                value = Value(_with(value.axes, i, size=size), value.dtype, taken)
            else:
                value = self._cut(value, i, start, stop)
        return value

    def _cut(self, value: Value, i: int, start: int, stop: int) -> Value:
        """Entries start to stop of axis i inside the pieces."""
        axis = value.axes[i]
        edges = (0, *itertools.accumulate(self.cuts(axis)))
        goal = self.cuts(axis._replace(size=stop - start))
        if start in edges and goal == self.cuts(axis)[edges.index(start) :][: len(goal)]:
            first = edges.index(start)
            taken = np.take(value.pieces, range(first, first + len(goal)), axis=i)
            return Value(_with(value.axes, i, size=stop - start), value.dtype, taken)
        if len(goal) > 1 or len(edges) > 2 or goal[0] != stop - start:
            raise NotImplementedError(
                f"{self.target.name}: slice {start}:{stop} of {axis.size}: a kernel cuts vectors "
                "only where its pieces end"
            )

        def part(x: jax.Array) -> jax.Array:
            return x[start:stop] if axis.place == Place.FIRST else x[:, start:stop]

        pieces = self._each(part, value.pieces, True)
        return Value(_with(value.axes, i, size=stop - start), value.dtype, pieces)

    def concatenate(self, values: Sequence[Value], i: int) -> Value:
        """`lax.concatenate`."""
        size = sum(v.axes[i].size for v in values)
        spread = [self._full(v, i) for v in values]
        axes = self._common([v._replace(axes=_with(v.axes, i, size=size)) for v in spread])
        spread = [self.arranged(v, _with(axes, i, size=v.axes[i].size)) for v in spread]
        if axes[i].place == Place.LISTED:
            counts = np.broadcast_shapes(*(_one(v.pieces.shape, i) for v in spread))
            parts = [
                np.broadcast_to(v.pieces, (*counts[:i], v.pieces.shape[i], *counts[i + 1 :]))
                for v in spread
            ]
            return Value(axes, spread[0].dtype, np.concatenate(parts, axis=i))
        cuts = tuple(c for v in spread for c in self.cuts(v.axes[i]))
        if cuts == self.cuts(axes[i]):
            counts = np.broadcast_shapes(*(_one(v.pieces.shape, i) for v in spread))
            parts = [
                np.broadcast_to(v.pieces, (*counts[:i], v.pieces.shape[i], *counts[i + 1 :]))
                for v in spread
            ]
            return Value(axes, spread[0].dtype, np.concatenate(parts, axis=i))
        if len(self.cuts(axes[i])) > 1 or sum(cuts) > size:
            raise NotImplementedError(
                f"{self.target.name}: concatenate to {size}: a kernel joins vectors only where its "
                "pieces end"
            )
        counts = np.broadcast_shapes(*(v.pieces.shape for v in spread))
        grids = [np.broadcast_to(v.pieces, counts) for v in spread]
        pieces = np.empty(counts, object)
        place = int(axes[i].place)
        for at in np.ndindex(*counts):
            parts = [grid[at] for grid in grids]
            pieces[at] = self.later(lambda *xs: _stacked(xs, place, 0), parts, True)
        return Value(axes, spread[0].dtype, pieces)

    def _full(self, value: Value, i: int) -> Value:
        """`value` with axis i in its pieces or listed."""
        axis = value.axes[i]
        if axis.place != Place.SAME:
            return value
        pieces = np.repeat(value.pieces, axis.size, axis=i)
        return Value(_with(value.axes, i, place=Place.LISTED), value.dtype, pieces)

    def pad(self, value: Value, fill: Value, config: Sequence[tuple[int, int, int]]) -> Value:
        """`lax.pad`, without negative or interior padding."""
        for i, (low, high, interior) in enumerate(config):
            if low < 0 or high < 0 or interior:
                raise NotImplementedError(
                    f"{self.target.name}: pad by {(low, high, interior)}: a kernel only appends"
                )
            if not low and not high:
                continue
            value = self._full(value, i)
            ends = [[self._filled(fill, value, i, size)] if size else [] for size in (low, high)]
            value = self.concatenate([*ends[0], value, *ends[1]], i)
        return value

    def _filled(self, fill: Value, like: Value, i: int, size: int) -> Value:
        """As `like`, but `size` long along axis i and `fill` everywhere."""
        shape = tuple(size if k == i else s for k, s in enumerate(like.shape))
        axis = like.axes[i]
        constant = self.broadcast(fill, shape, ())
        if axis.place == Place.LISTED:
            return self._full(constant, i)
        cuts = self.cuts(axis._replace(size=shape[i]))
        pieces = np.empty([len(cuts) if k == i else 1 for k in range(len(shape))], object)
        number = constant.pieces.reshape(-1)[0]

        def filled(cut: int) -> jax.Array:
            lengths = (cut, 1) if axis.place == Place.FIRST else (1, cut)
            return jnp.full(lengths, number(), fill.dtype)

        for k, cut in enumerate(cuts):
            pieces.reshape(-1)[k] = Piece(partial(filled, cut))
        axes = _with(constant.axes, i, place=axis.place, kind=axis.kind)
        return Value(axes, fill.dtype, pieces)

    def iota(self, dtype: Any, shape: tuple[int, ...], i: int) -> Value:
        """`lax.iota` along axis i."""
        axis = Axis(shape[i], Place.SECOND)
        cuts = self.cuts(axis)
        pieces = np.empty([len(cuts) if k == i else 1 for k in range(len(shape))], object)

        def counted(start: int, length: int) -> jax.Array:
            return jax.lax.broadcasted_iota(dtype, (1, length), 1) + jnp.asarray(start, dtype)

        for k, (start, cut) in enumerate(zip(itertools.accumulate((0, *cuts)), cuts)):
            pieces.reshape(-1)[k] = Piece(partial(counted, start, cut))
        axes = tuple(axis if k == i else Axis(s, Place.SAME) for k, s in enumerate(shape))
        return Value(axes, jnp.dtype(dtype), pieces)


def _second(function: Callable[[Any, int], Any], argument: int) -> Callable[[Any], Any]:
    return lambda x: function(x, argument)


def _inside(axis: Axis) -> bool:
    return axis.place in (Place.FIRST, Place.SECOND)


def _is_wide(axes: Sequence[Axis]) -> bool:
    return any(_inside(axis) and axis.kind == Kind.WIDE for axis in axes)


def _either(a: Axis, b: Axis) -> Axis:
    return b if a.place == Place.SAME else a


def _one(shape: tuple[int, ...], i: int) -> tuple[int, ...]:
    return (*shape[:i], 1, *shape[i + 1 :])


def _with(axes: Sequence[Axis], i: int, **changes: Any) -> tuple[Axis, ...]:
    return tuple(axis._replace(**changes) if k == i else axis for k, axis in enumerate(axes))


def _met(xs: Sequence[jax.Array]) -> list[jax.Array]:
    """Matrices; flags among them have the shape of all, for devices do not repeat flags."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in xs))

    def one(x: jax.Array) -> jax.Array:
        if jnp.result_type(x) != jnp.bool_ or np.shape(x) == shape or not np.ndim(x):
            return x
        return jnp.broadcast_to(x.astype(jnp.int32), shape) != 0

    return [one(x) for x in xs]


def _transposed(x: jax.Array) -> jax.Array:
    if np.ndim(x) < 2:
        return x
    if x.dtype == jnp.bool_:
        return x.astype(jnp.int32).T != 0
    return x.T


def _chained(between: Callable[[Any, Any], Any], xs: Sequence[Any]) -> Any:
    total = xs[0]
    for x in xs[1:]:
        total = between(total, x)
    return total


def _stacked(xs: Sequence[Any], place: int, missing: int) -> jax.Array:
    """Matrices, or numbers, side by side along one axis, with zeros at the end."""
    matrices = [x if np.ndim(x) else jnp.full((1, 1), x) for x in xs]
    length = max(x.shape[1 - place] for x in matrices)
    shape = [length, length]
    parts = []
    for x in matrices:
        shape[place] = x.shape[place]
        parts.append(jnp.broadcast_to(x, shape))
    if missing:
        shape[place] = missing
        parts.append(jnp.zeros(shape, parts[0].dtype))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=place)


NARROWED = {"BF16_BF16_F32": jnp.bfloat16, "F16_F16_F32": jnp.float16}


def _matrix_product(
    a: jax.Array, b: jax.Array, along: Sequence[int], precision: Any, dtype: Any
) -> jax.Array:
    """The product of two matrices over the axes `along`."""
    narrowed = NARROWED.get(getattr(precision, "name", ""))
    if narrowed is not None:
        a, b, precision = a.astype(narrowed), b.astype(narrowed), None
    dims = (((along[0],), (along[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type=dtype)
