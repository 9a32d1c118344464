"""Visit every pair of two sides on one GPU, in waves of one Pallas (Triton) kernel.

    for each wave:                     one launch after another
        program p:                     side by side, in no order
            visit tile (p, p + wave)   the column block round the end

In a wave every block of rows and every block of columns belongs to one program, which reads, visits
and writes what is accumulated for them where it lies in memory. Nothing is added up atomically, and
no part of a result waits to be joined, but for what is accumulated over all pairs, of which every
program has its own. The order in which numbers are added up does not depend on timing.

`sweep` here is `sweep.sweep` for a GPU: the same `visit`, whatever it does, is traced once and
evaluated on the pieces of a tile (`in_kernel.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.pair_reduce.interpreted import interpretation
from pallas_kernels.pair_reduce.kernel_step import Step, step
from pallas_kernels.pair_reduce.layout import shape_like
from pallas_kernels.pair_reduce.pieces import Pieces, Target
from pallas_kernels.pair_reduce.stored import Stored
from pallas_kernels.pair_reduce.sweep import Merge, State, Visit, added, length
from pallas_kernels.pair_reduce.types import At

NARROWEST = 16  # of any side of a matrix: what tensor cores take
WIDEST = 128  # numbers of a vector that are in registers at once


def width(size: int) -> int:
    """Into which powers of two a vector of `size` numbers is cut: the last is filled up, little."""
    found = min(WIDEST, max(NARROWEST, 1 << (size - 1).bit_length()))
    while found > NARROWEST and -size % (found // 2) < -size % found:
        found //= 2
    return found


def _barrier() -> None:
    if not interpretation():
        plgpu.debug_barrier()


PIECES = Pieces(
    Target(
        "pallas_gpu",
        width,
        least=NARROWEST,
        slices=False,
        barrier=_barrier,
    )
)


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
    """As `sweep.sweep`; blocks are cut down to powers of two, of 16 at least."""
    n, m = length(rows), length(cols)
    if not n or not m:
        return state
    r, c = (max(NARROWEST, 1 << (min(b, size).bit_length() - 1)) for b, size in zip(blocks, (n, m)))
    body, row_leaves, col_leaves = step(visit, rows, cols, state, start, (r, c), group, PIECES)
    wave = _Wave(body, -(-n // r), -(-m // c), group)
    if empty is None:
        empty = jax.tree.map(jnp.zeros_like, state.all)

    arrays = [
        jnp.stack([start.row, start.col, start.row + n, start.col + m]).astype(jnp.int32),
        *(s.paged(x) for s, x in zip(body.shared, body.values)),
        *(s.paged(x) for s, x in zip(body.rows, row_leaves)),
        *(s.paged(x) for s, x in zip(body.cols, col_leaves)),
    ]
    parts = [
        *(s.paged(x) for s, x in zip(body.state.row, jax.tree.leaves(state.row))),
        *(s.paged(x) for s, x in zip(body.state.col, jax.tree.leaves(state.col))),
        *(
            jnp.concatenate([s.paged(x), *[s.paged(nothing)] * (wave.programs - 1)])
            for s, x, nothing in zip(
                body.state.all, jax.tree.leaves(state.all), jax.tree.leaves(empty)
            )
        ),
    ]
    launch = pl.pallas_call(
        wave.kernel,
        grid=(wave.programs,),
        out_shape=[shape_like(x.shape, x.dtype, (*arrays, *parts)) for x in parts],
        input_output_aliases={1 + len(arrays) + i: i for i in range(len(parts))},
        compiler_params=plgpu.CompilerParams(num_warps=8 if r * c > 64 * 64 else 4, num_stages=1),
        interpret=interpretation(),
        name="pair_reduce",
    )

    def one(k: Any, parts: list[jax.Array]) -> list[jax.Array]:
        return list(launch(jnp.full(1, k, jnp.int32), *arrays, *parts))

    flat = iter(jax.lax.fori_loop(0, wave.count, one, parts))
    row, col = (
        jax.tree.unflatten(jax.tree.structure(part), [s.whole(next(flat)) for s in stored])
        for part, stored in zip(state[:2], body.state[:2])
    )
    each = [jax.vmap(s.whole)(next(flat)[:, None]) for s in body.state.all]
    return State(row, col, _folded(jax.tree.unflatten(jax.tree.structure(state.all), each), merge))


def _folded(parts: Any, merge: Merge) -> Any:
    """The parts along the leading axis joined, two by two."""
    join = jax.vmap(merge or added)
    while jax.tree.leaves(parts) and length(parts) > 1:
        half = length(parts) // 2
        first, second, rest = (
            jax.tree.map(lambda x, at=at: x[at], parts)
            for at in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        parts = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), join(first, second), rest)
    return jax.tree.map(lambda x: x[0], parts)


class _Wave(NamedTuple):
    """The kernel of one wave, in which no two tiles share rows or columns."""

    step: Step
    row_blocks: int
    col_blocks: int
    group: tuple[int, int] | None

    @property
    def programs(self) -> int:
        return min(self.row_blocks, self.col_blocks)

    @property
    def count(self) -> int:
        """How many waves visit all tiles."""
        return max(self.row_blocks, self.col_blocks)

    def kernel(self, wave: Any, places: Any, *refs: Any) -> None:
        given = iter(refs)

        def pages(stored: list[Stored], block: Any) -> list[_Page]:
            return [_Page(next(given), block) for _ in stored]

        step = self.step
        program = pl.program_id(0)
        other = jax.lax.rem(program + wave[0], jnp.int32(self.count))
        i, j = (program, other) if self.row_blocks <= self.col_blocks else (other, program)
        shared, row, col = pages(step.shared, 0), pages(step.rows, i), pages(step.cols, j)
        for stored in step.state:
            pages(stored, 0)  # aliases of what follows
        state = State(*(pages(s, at) for s, at in zip(step.state, (i, j, program))))
        start = At(places[0] + i * step.blocks[0], places[1] + j * step.blocks[1])

        @pl.when(step.counts(start, self.group))
        def _() -> None:
            step(shared, row, col, state, state, start, At(places[2], places[3]))


class _Page:
    """One block's page of an array in memory."""

    def __init__(self, ref: Any, block: Any) -> None:
        self._ref, self._block = ref, block

    def __getitem__(self, index: tuple[Any, ...]) -> jax.Array:
        return self._ref[(self._block, *index)]

    def __setitem__(self, index: tuple[Any, ...], value: jax.Array) -> None:
        self._ref[(self._block, *index)] = value
