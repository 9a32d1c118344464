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

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.pair_reduce import gpu_functions
from pallas_kernels.pair_reduce.interpreted import interpretation
from pallas_kernels.pair_reduce.kernel_step import Step, step
from pallas_kernels.pair_reduce.layout import shape_like
from pallas_kernels.pair_reduce.on_chip import chip, device_kind, live_bytes
from pallas_kernels.pair_reduce.pieces import Pieces, Target
from pallas_kernels.pair_reduce.sweep import Merge, State, Visit, added, length
from pallas_kernels.pair_reduce.types import At, Tile

LARGEST, SMALLEST = 128, 16  # rows or columns of a tile
LANES = SMALLEST  # of any side of a matrix: what tensor cores take
WIDEST = 64  # numbers of a vector that are in registers at once
MOST = 32  # pieces of an array: 16 take half a minute to compile, 64 of them several


def width(size: int) -> int:
    """Into which powers of two a vector of `size` numbers is cut, so that little is filled up."""
    found = min(WIDEST, max(LANES, 1 << int(size - 1).bit_length()))
    while found > LANES and -size % (found // 2) < -size % found:
        found //= 2
    return found


def _barrier() -> None:
    """Threads of a program that hold the same number have read it before one of them writes."""
    if not interpretation():
        plgpu.debug_barrier()


PIECES = Pieces(
    Target(
        "pallas_gpu",
        width,
        least=LANES,
        slices=False,
        most=MOST,
        instead=gpu_functions.INSTEAD,
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
    """As `sweep.sweep`; blocks are rounded down to powers of two from 16 to 128.

    Raises:
        NotImplementedError: the tile or a reduction does what no kernel does, or an array of it
            falls into too many pieces.
    """
    n, m = length(rows), length(cols)
    if not n or not m:
        return state
    r, c = (_rounded(min(block, size)) for block, size in zip(blocks, (n, m)))
    body, row_leaves, col_leaves = step(visit, rows, cols, state, start, (r, c), group, PIECES)
    wave = _Wave(body, -(-n // r), -(-m // c), group)

    arrays = body.paged_inputs(start, At(start.row + n, start.col + m), row_leaves, col_leaves)
    if empty is None:
        empty = jax.tree.map(jnp.zeros_like, state.all)
    nothing = [s.paged(x) for s, x in zip(body.state.all, jax.tree.leaves(empty))]
    kept = body.paged_state(state)
    sides = len(kept) - len(nothing)
    for i, pages in enumerate(nothing, sides):
        kept[i] = jnp.concatenate([kept[i], *[pages] * (wave.programs - 1)])
    launch = pl.pallas_call(
        wave.kernel,
        grid=(wave.programs,),
        out_shape=[shape_like(x.shape, x.dtype, (*arrays, *kept)) for x in kept],
        input_output_aliases={1 + len(arrays) + i: i for i in range(len(kept))},
        compiler_params=plgpu.CompilerParams(num_warps=8 if r * c > 64 * 64 else 4, num_stages=2),
        cost_estimate=body.cost(wave.programs),
        interpret=interpretation(),
        name="pair_reduce",
    )

    def one(k: Any, kept: list[jax.Array]) -> list[jax.Array]:
        return list(launch(jnp.full(1, k, jnp.int32), *arrays, *kept))

    kept = jax.lax.fori_loop(0, wave.waves, one, kept)
    each = [jax.vmap(s.whole)(x[:, None]) for s, x in zip(body.state.all, kept[sides:])]
    structure = jax.tree.structure(state.all)
    over_all = _folded(jax.tree.unflatten(structure, each), merge)
    first = [x[:1] for x in kept[sides:]]
    return body.whole_state([*kept[:sides], *first], state)._replace(all=over_all)


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


def _rounded(size: int) -> int:
    return min(LARGEST, max(SMALLEST, 1 << (size.bit_length() - 1)))


def fits(tile: Tile, row: Any, col: Any, params: Any, at: At) -> bool:
    """Whether the registers hold all values of a tile and its derivative.

    So there is room for products: most values need not be there at one time, for a thread computes
    its numbers one after another.
    """
    sides = len(at.row), len(at.col)

    def size(shape: tuple[int, ...], dtype: Any) -> int:
        if len(shape) > 1 and shape[-1] > WIDEST and shape[-1] not in sides:
            return 0  # cut: made anew at each use
        return math.prod(shape) * max(4, jnp.dtype(dtype).itemsize)  # flags and bfloat16 in 32 bits

    registers = chip(device_kind(), "gpu").on_chip
    return live_bytes(tile, row, col, params, at, size) <= registers


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
    def waves(self) -> int:
        """How many waves visit all tiles."""
        return max(self.row_blocks, self.col_blocks)

    def kernel(self, wave: Any, *refs: Any) -> None:
        step = self.step
        places, shared, row, col, _before, after, _scratch = step.sorted(refs)
        program = pl.program_id(0)
        other = jax.lax.rem(program + wave[0], jnp.int32(self.waves))
        i, j = (program, other) if self.row_blocks <= self.col_blocks else (other, program)
        start = At(places[0] + i * step.blocks[0], places[1] + j * step.blocks[1])

        def pages(refs: list[Any], block: Any) -> list[_Page]:
            return [_Page(ref, block) for ref in refs]

        state = State(*(pages(part, at) for part, at in zip(after, (i, j, program))))

        @pl.when(step.counts(start, self.group))
        def visit() -> None:
            sides = pages(shared, 0), pages(row, i), pages(col, j)
            step(*sides, state, state, start, At(places[2], places[3]))


class _Page:
    """One block's page of an array in memory."""

    def __init__(self, ref: Any, block: Any) -> None:
        self._ref, self._block = ref, block

    def __getitem__(self, index: tuple[Any, ...]) -> jax.Array:
        return self._ref[(self._block, *index)]

    def __setitem__(self, index: tuple[Any, ...], value: jax.Array) -> None:
        self._ref[(self._block, *index)] = value
