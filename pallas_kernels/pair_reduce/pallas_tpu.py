"""Visit every pair of two sides on one TPU core, in one Pallas kernel.

    for each block of rows:            its state stays in VMEM
        for each block of columns:     its state is paged (`paging.py`)
            visit

`sweep` here is `sweep.sweep` for a TPU: the same `visit`, whatever it does, is traced once and
evaluated on the pieces of a tile (`in_kernel.py`). Blocks of both sides are read from HBM while the
tile before is computed. Numbers are added up in an order that does not depend on timing.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.pair_reduce.interpreted import interpretation
from pallas_kernels.pair_reduce.kernel_step import Step, step
from pallas_kernels.pair_reduce.layout import shape_like
from pallas_kernels.pair_reduce.on_chip import chip, device_kind, live_bytes, tiled_bytes
from pallas_kernels.pair_reduce.paging import FEWEST, Paging, when_first
from pallas_kernels.pair_reduce.pieces import Pieces, Target
from pallas_kernels.pair_reduce.stored import Stored
from pallas_kernels.pair_reduce.sweep import Merge, State, Visit, length
from pallas_kernels.pair_reduce.types import At, Tile


def _precision(asked: Any) -> Any:
    """A TPU multiplies bfloat16 numbers, one product by default, six for a float32 one."""
    given = asked if isinstance(asked, tuple) else (asked,)
    default = (None, jax.lax.Precision.DEFAULT, jax.lax.DotAlgorithmPreset.DEFAULT)
    return None if all(one in default for one in given) else (jax.lax.Precision.HIGHEST,) * 2


PIECES = Pieces(Target("pallas_tpu", lacks=frozenset({"bool", "float16"}), precision=_precision))
SUBLANES = 16  # rows of a tile of 16-bit numbers in VMEM
LARGEST, SMALLEST = 1024, SUBLANES  # rows or columns of a tile
LANES = 128  # columns that a vector unit computes on at once


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
    """As `sweep.sweep`."""
    n, m = length(rows), length(cols)
    if not n or not m:
        return state
    r, c = tile_size(blocks, n, m)
    body, row_leaves, col_leaves = step(visit, rows, cols, state, start, (r, c), group, PIECES)
    grid = -(-n // r), -(-m // c)
    paging = Paging.of(body.state.col, *grid, room_for_state())
    arrays = body.paged_inputs(start, At(start.row + n, start.col + m), row_leaves, col_leaves)
    kept = body.paged_state(state)
    state_specs = [
        *(page_spec(s, lambda i, j: i) for s in body.state.row),
        *(pl.BlockSpec(memory_space=pl.ANY) for _ in body.state.col),
        *(page_spec(s, lambda i, j: 0) for s in body.state.all),
    ]
    out = pl.pallas_call(
        _Kernel(body, grid, paging, group).run,
        grid=grid,
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(page_spec(s, lambda i, j: 0) for s in body.shared),
            *(page_spec(s, lambda i, j: i) for s in body.rows),
            *(page_spec(s, lambda i, j: j) for s in body.cols),
            *state_specs,
        ],
        out_specs=state_specs,
        out_shape=[shape_like(x.shape, x.dtype, (arrays, kept)) for x in kept],
        scratch_shapes=paging.scratch,
        input_output_aliases={len(arrays) + i: i for i in range(len(kept))},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=vmem()
        ),
        cost_estimate=body.cost(math.prod(grid)),
        interpret=interpretation(),
        name="pair_reduce",
    )(*arrays, *kept)
    return body.whole_state(out, state)


def vmem() -> int:
    """Bytes of VMEM that a kernel may take: the rest is for what runs before and after it."""
    return chip(device_kind(), "tpu").on_chip * 3 // 4


def room_for_state() -> int:
    """Bytes of column state that may stay in VMEM."""
    return vmem() // 4


def fits(tile: Tile, row: Any, col: Any, params: Any, at: At) -> bool:
    """Whether the forward and backward kernel of a tile of these shapes fit into VMEM.

    Blocks are there twice, one that arrives and one that is computed on; so are the gradients of
    the rows and of params, as they come and as they go.
    """
    blocks = 2 * sum(map(_page_bytes, jax.tree.leaves((row, col))))
    for leaf in jax.tree.leaves(params):
        page = _page_bytes(leaf) if leaf.shape else tiled_bytes((), jnp.float32)
        blocks += (6 if _is_float(leaf) else 2) * page
    d_row, d_col = (
        sum(map(_page_bytes, filter(_is_float, jax.tree.leaves(side)))) for side in (row, col)
    )
    state = 4 * d_row + max(FEWEST * d_col, room_for_state())
    return blocks + state + live_bytes(tile, row, col, params, at, tiled_bytes) <= vmem()


def _page_bytes(leaf: Any) -> int:
    """Bytes of a block of a leaf as the kernel holds it, in 32 bits."""
    b, *inner = leaf.shape
    if not inner:
        return tiled_bytes((1, b), jnp.float32)
    return math.prod(inner[:-1]) * tiled_bytes((b, inner[-1]), jnp.float32)


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def tile_size(blocks: tuple[int, int], n: int, m: int) -> tuple[int, int]:
    """Rows and columns of a tile, as the memory of a TPU asks for them."""
    r, c = (-(-min(b, size) // SUBLANES) * SUBLANES for b, size in zip(blocks, (n, m)))
    return r, c


def page_spec(stored: Stored, block: Callable[..., Any]) -> pl.BlockSpec:
    """One page at a time: that which `block` of the grid's indices names."""
    rest = (0,) * len(stored.page)
    return pl.BlockSpec((None, *stored.page), lambda *at: (block(*at), *rest))


class _Kernel(NamedTuple):
    """The kernel for one grid of tiles."""

    step: Step
    grid: tuple[int, int]
    paging: Paging
    group: tuple[int, int] | None

    def run(self, *refs: Any) -> None:
        step = self.step
        places, shared, row, col, before, after, scratch = step.sorted(refs)
        i, j = pl.program_id(0), pl.program_id(1)
        now = i * self.grid[1] + j
        when_first(j == 0, before.row, after.row)
        when_first(now == 0, before.all, after.all)
        here = self.paging.arrive(now, after.col, scratch)
        start = At(places[0] + i * step.blocks[0], places[1] + j * step.blocks[1])
        state = State(after.row, here, after.all)

        @pl.when(step.counts(start, self.group))
        def _() -> None:
            step(shared, row, col, state, state, start, At(places[2], places[3]))

        self.paging.leave(now, after.col, scratch)
