"""One tile's visit as the body of a kernel: read pages, evaluate the program, write the state."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.extend.core import ClosedJaxpr, Literal

from pallas_kernels.pair_reduce.flops import operations, transcendentals
from pallas_kernels.pair_reduce.in_kernel import ELEMENTWISE, evaluate
from pallas_kernels.pair_reduce.pieces import Kind, Piece, Pieces, Place, Value, placed
from pallas_kernels.pair_reduce.stored import Side, Stored
from pallas_kernels.pair_reduce.sweep import State, Visit, all_of, length
from pallas_kernels.pair_reduce.types import At


class Step(NamedTuple):
    """A visit, traced for tiles of one size, and the arrays that all its tiles share.

    Attributes:
        program: (shared, rows, cols, state.row, state.col, state.all, at.row, at.col, ends) ->
            (state.row, state.col, state.all), flat.
        values: what every tile sees whole: params, cotangents over all pairs, constants.
        shared, rows, cols, state: how the leaves lie in memory.
        blocks: rows and columns of a tile.
    """

    program: ClosedJaxpr
    values: list[jax.Array]
    shared: list[Stored]
    rows: list[Stored]
    cols: list[Stored]
    state: State  # of lists of Stored
    blocks: tuple[int, int]
    pieces: Pieces

    def __call__(
        self,
        shared: Sequence[Any],
        row: Sequence[Any],
        col: Sequence[Any],
        before: State,
        after: State,
        start: At,
        end: At,
    ) -> None:
        """Visit one tile.

        Args:
            shared, row, col: the pages of the leaves.
            before, after: lists of pages of the state; a page may be in both.
            start: positions of the tile's first row and column, int32 scalars.
            end: the first positions that are no longer in the sides.
        """
        given = [
            *(s.read(p) for s, p in zip(self.shared, shared)),
            *(s.read(p) for s, p in zip(self.rows, row)),
            *(s.read(p) for s, p in zip(self.cols, col)),
        ]
        states = [
            s.read(p)
            for per in ("row", "col", "all")
            for s, p in zip(getattr(self.state, per), getattr(before, per))
        ]
        at = [self._positions(at, axis) for axis, at in enumerate(start)]
        ends = [self.pieces.constant(e) for e in end]
        results = evaluate(self.pieces, self.program, [*given, *states, *at, *ends])
        barrier = self.pieces.target.barrier
        first = self._read_first(len(given), len(states))
        for i in range(len(states)) if barrier else first:
            if i in first and not self.pieces.whole(states[i].axes):
                raise NotImplementedError(
                    f"{self.pieces.target.name}: what is accumulated changes places along vectors"
                    f" of {states[i].shape[-1]}, which are never in registers at once"
                )
            for piece in states[i].pieces.reshape(-1):
                piece.settle()
        if barrier:
            barrier()
        pages = [*after.row, *after.col, *after.all]
        stored = [*self.state.row, *self.state.col, *self.state.all]
        for how, page, value in zip(stored, pages, results, strict=True):
            how.write(page, value)

    def cost(self, tiles: int, remote: int = 0) -> pl.CostEstimate:
        """What visiting so many tiles costs: for a scheduler, and for whoever plans.

        Args:
            remote: bytes that are sent to another device.

        Returns:
            operations of the products alone; transcendental functions; bytes of HBM that are read
            and written if the rows and the columns' state are moved once a tile at most.
        """
        pages = sum(leaf.page_bytes for leaf in self.cols)
        state = sum(leaf.page_bytes for leaf in self.state.col)
        return pl.CostEstimate(
            flops=int(tiles * operations(self.program.jaxpr)),
            transcendentals=int(tiles * transcendentals(self.program.jaxpr)),
            bytes_accessed=tiles * (pages + 2 * state),
            remote_bytes_transferred=remote,
        )

    def sorted(self, refs: Sequence[Any]) -> tuple[Any, ...]:
        """A kernel's references in their order: places, shared, rows, columns, state before, state
        after, scratch.
        """
        given = iter(refs)

        def take(leaves: Sequence[Any]) -> list[Any]:
            return [next(given) for _ in leaves]

        (places,) = take([None])
        shared, row, col = (take(leaves) for leaves in (self.shared, self.rows, self.cols))
        before, after = (State(*(take(part) for part in self.state)) for _ in range(2))
        return places, shared, row, col, before, after, list(given)

    def counts(self, start: At, group: tuple[int, int] | None) -> Any:
        """Whether any pair of the tile that begins at `start` is within a group."""
        if group is None:
            return True
        low = start.row // group[0] * group[1]
        high = ((start.row + self.blocks[0] - 1) // group[0] + 1) * group[1]
        return (start.col < high) & (start.col + self.blocks[1] > low)

    def paged_inputs(self, places: At, ends: At, rows: Any, cols: Any) -> list[jax.Array]:
        """What a kernel reads: four int32 numbers, and the pages of all leaves but the state's."""
        leaves = zip((*self.shared, *self.rows, *self.cols), (*self.values, *rows, *cols))
        return [
            jnp.stack([*places, *ends]).astype(jnp.int32),
            *(how.paged(x) for how, x in leaves),
        ]

    def paged_state(self, state: State) -> list[jax.Array]:
        """The leaves of a state as pages."""
        return [
            how.paged(x)
            for part, stored in zip(state, self.state)
            for how, x in zip(stored, jax.tree.leaves(part))
        ]

    def whole_state(self, pages: Sequence[jax.Array], like: State) -> State:
        """The reverse: a state of the structure of `like`."""
        given = iter(pages)
        return State(
            *(
                jax.tree.unflatten(
                    jax.tree.structure(part), [how.whole(next(given)) for how in stored]
                )
                for part, stored in zip(like, self.state)
            )
        )

    def _positions(self, first: Any, axis: int) -> Value:
        size = self.blocks[axis]
        shape = (1, size) if axis else (size, 1)
        piece = Piece(lambda _: first + jax.lax.broadcasted_iota(jnp.int32, shape, axis))
        where = placed(size, Place(axis), Kind(axis))
        return Value((where,), jnp.dtype("int32"), np.array([piece], object))

    def _read_first(self, first: int, count: int) -> list[int]:
        """Which leaves of the state are read before anything is written, for a page may be written
        where it was read: those that another leaf's new value depends on, or their own otherwise
        than entry by entry.
        """
        jaxpr = self.program.jaxpr
        nothing: frozenset[int] = frozenset()
        depends: dict[Any, frozenset[int]] = {
            var: frozenset({i}) for i, var in enumerate(jaxpr.invars[first : first + count])
        }
        mixes: dict[Any, frozenset[int]] = {}  # of these, those not entry by entry
        for equation in jaxpr.eqns:
            read = [v for v in equation.invars if not isinstance(v, Literal) and depends.get(v)]
            seen = nothing.union(*(depends[v] for v in read))
            (shape, *_) = [getattr(var.aval, "shape", None) for var in equation.outvars]
            by_entry = equation.primitive.name in ELEMENTWISE
            mixed = nothing.union(
                *(
                    mixes.get(v, nothing) if by_entry and v.aval.shape == shape else depends[v]
                    for v in read
                )
            )
            depends.update({var: seen for var in equation.outvars})
            mixes.update({var: mixed for var in equation.outvars})
        outs = [None if isinstance(var, Literal) else var for var in jaxpr.outvars]
        return sorted(
            {
                i
                for k, var in enumerate(outs)
                for i in depends.get(var, nothing)
                if i != k or i in mixes.get(var, nothing)
            }
        )


def step(
    visit: Visit,
    rows: Any,
    cols: Any,
    state: State,
    start: At,
    blocks: tuple[int, int],
    group: tuple[int, int] | None,
    pieces: Pieces,
) -> tuple[Step, list[jax.Array], list[jax.Array]]:
    """`visit` traced for tiles of `blocks`, and the leaves of both sides that it reads.

    Rows that a last block has too many do not count; nor do pairs of two groups.
    """
    n, m = length(rows), length(cols)
    ragged = (bool(n % blocks[0]), bool(m % blocks[1]))
    groups = []
    if group is not None:
        groups = [
            (at + jnp.arange(size, dtype=jnp.int32)) // of
            for at, size, of in zip(start, (n, m), group)
        ]
    sides = [(rows, groups[:1]), (cols, groups[1:])]
    leaves = [jax.tree.leaves(side) for side in sides]
    states = [jax.tree.leaves(part) for part in state]

    def flat(*args: Any) -> list[Any]:
        given = iter(args)
        row, col = (
            jax.tree.unflatten(jax.tree.structure(side), [next(given) for _ in some])
            for side, some in zip(sides, leaves)
        )
        before = State(
            *(
                jax.tree.unflatten(jax.tree.structure(part), [next(given) for _ in some])
                for part, some in zip(state, states)
            )
        )
        at, end = At(next(given), next(given)), At(next(given), next(given))
        valid = all_of(
            (at.row < end.row)[:, None] if ragged[0] else None,
            (at.col < end.col)[None, :] if ragged[1] else None,
            None if group is None else row[1][0][:, None] == col[1][0],
        )
        if valid is not None:
            valid = jnp.broadcast_to(valid, blocks)
        after = visit(row[0], col[0], before, at, valid)
        return jax.tree.leaves(after)

    def block(x: Any, size: int | None) -> Any:
        shape = x.shape if size is None else (size, *x.shape[1:])
        return jax.ShapeDtypeStruct(shape, x.dtype)

    sizes = (*blocks, None)
    int32 = jnp.dtype("int32")
    example = [
        *(block(x, size) for some, size in zip(leaves, sizes) for x in some),
        *(block(x, size) for some, size in zip(states, sizes) for x in some),
        *(jax.ShapeDtypeStruct((size,), int32) for size in blocks),
        *(jax.ShapeDtypeStruct((), int32),) * 2,
    ]
    traced = jax.make_jaxpr(flat)(*example)
    values = [jnp.asarray(x) for x in traced.consts]
    jaxpr = traced.jaxpr
    program = ClosedJaxpr(jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars]), [])

    def stored(some: Sequence[Any], side: Side) -> list[Stored]:
        size = {"row": blocks[0], "col": blocks[1], "all": 0}[side]
        return [Stored(x.shape, jnp.dtype(x.dtype), side, size, pieces) for x in some]

    made = Step(
        program,
        values,
        stored(values, "all"),
        stored(leaves[0], "row"),
        stored(leaves[1], "col"),
        State(stored(states[0], "row"), stored(states[1], "col"), stored(states[2], "all")),
        blocks,
        pieces,
    )
    return made, leaves[0], leaves[1]
