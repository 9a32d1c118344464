"""Visit every pair of two sides on one TPU core, in one Pallas kernel.

    for each block of rows:            its state stays in VMEM
        for each block of columns:     its state is paged from and to HBM while others compute,
            visit                      or stays in VMEM as well, where it fits

`sweep` here is `sweep.sweep` for a TPU: the same `visit`, whatever it does, is traced once and
evaluated on the pieces of a tile (`in_kernel.py`). The order in which numbers are added up does not
depend on timing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.pair_reduce.interpreted import interpretation
from pallas_kernels.pair_reduce.kernel_step import Step, step
from pallas_kernels.pair_reduce.layout import shape_like
from pallas_kernels.pair_reduce.pieces import Pieces, Target
from pallas_kernels.pair_reduce.stored import Stored
from pallas_kernels.pair_reduce.sweep import State, Visit, length
from pallas_kernels.pair_reduce.types import At

PIECES = Pieces(Target("pallas_tpu"))
SUBLANES = 16  # rows of a tile of 16-bit numbers in VMEM
PAGES = 3  # of column state in VMEM: one comes, one is computed on, one goes
RESIDENT = 16 << 20  # bytes of column state that stay in VMEM
VMEM = 100 << 20


def sweep(
    visit: Visit,
    rows: Any,
    cols: Any,
    state: State,
    start: At,
    *,
    blocks: tuple[int, int],
    group: tuple[int, int] | None = None,
) -> State:
    """As `sweep.sweep`."""
    n, m = length(rows), length(cols)
    if not n or not m:
        return state
    r, c = (min(b, n) for b, n in zip(blocks, (n, m)))
    r, c = (-(-b // SUBLANES) * SUBLANES for b in (r, c))
    body, row_leaves, col_leaves = step(visit, rows, cols, state, start, (r, c), group, PIECES)
    states = [jax.tree.leaves(part) for part in state]
    ni, nj = -(-n // r), -(-m // c)
    state_bytes = sum(s.page_bytes for s in body.state.col)
    slots = nj if nj < PAGES or nj * state_bytes <= RESIDENT else PAGES
    grid = _Grid(body, ni, nj, slots, group)

    arrays = [
        jnp.stack([start.row, start.col, start.row + n, start.col + m]).astype(jnp.int32),
        *(s.paged(x) for s, x in zip(body.shared, body.values)),
        *(s.paged(x) for s, x in zip(body.rows, row_leaves)),
        *(s.paged(x) for s, x in zip(body.cols, col_leaves)),
    ]
    kept = [s.paged(x) for how, some in zip(body.state, states) for s, x in zip(how, some)]
    in_place = {len(arrays) + i: i for i in range(len(kept))}
    out = pl.pallas_call(
        grid.kernel,
        grid=(ni, nj),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(_spec(s, lambda i, j: 0) for s in body.shared),
            *(_spec(s, lambda i, j: i) for s in body.rows),
            *(_spec(s, lambda i, j: j) for s in body.cols),
            *grid.state_specs,
        ],
        out_specs=grid.state_specs,
        out_shape=[shape_like(x.shape, x.dtype, (*arrays, *kept)) for x in kept],
        scratch_shapes=[
            *(pltpu.VMEM((slots, *s.page), s.kernel_dtype) for s in body.state.col),
            pltpu.SemaphoreType.DMA((2, max(1, len(body.state.col)), min(slots, PAGES))),
        ],
        input_output_aliases=in_place,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=VMEM
        ),
        interpret=interpretation(),
        name="pair_reduce",
    )(*arrays, *kept)
    flat = iter(s.whole(pages) for s, pages in zip((s for how in body.state for s in how), out))
    return State(
        *(
            jax.tree.unflatten(jax.tree.structure(part), [next(flat) for _ in some])
            for part, some in zip(state, states)
        )
    )


def _spec(stored: Stored, block: Any) -> pl.BlockSpec:
    """One page at a time, that which `block` of the grid's indices names."""
    rest = (0,) * len(stored.page)
    return pl.BlockSpec((None, *stored.page), lambda i, j: (block(i, j), *rest))


class _Grid(NamedTuple):
    """The kernel for one grid of tiles."""

    step: Step
    row_blocks: int
    col_blocks: int
    slots: int
    group: tuple[int, int] | None

    @property
    def state_specs(self) -> list[pl.BlockSpec]:
        return [
            *(_spec(s, lambda i, j: i) for s in self.step.state.row),
            *(pl.BlockSpec(memory_space=pl.ANY) for _ in self.step.state.col),
            *(_spec(s, lambda i, j: 0) for s in self.step.state.all),
        ]

    def kernel(self, *refs: Any) -> None:
        given = iter(refs)

        def take(count: int) -> list[Any]:
            return [next(given) for _ in range(count)]

        step = self.step
        counts = [len(part) for part in step.state]
        (places,) = take(1)
        shared, row, col = (take(len(s)) for s in (step.shared, step.rows, step.cols))
        before = State(*(take(k) for k in counts))
        after = State(*(take(k) for k in counts))
        pages, (semaphores,) = take(counts[1]), take(1)

        i, j = pl.program_id(0), pl.program_id(1)
        now = i * self.col_blocks + j
        slot = self._arrive(now, j, after.col, pages, semaphores)

        @pl.when(j == 0)
        def _() -> None:
            for old, new in zip(before.row, after.row):
                new[...] = old[...]

        @pl.when(now == 0)
        def _() -> None:
            for old, new in zip(before.all, after.all):
                new[...] = old[...]

        start = At(places[0] + i * step.blocks[0], places[1] + j * step.blocks[1])
        end = At(places[2], places[3])
        here = [page.at[slot] for page in pages]
        state = State(after.row, here, after.all)

        @pl.when(self._counts(start))
        def _() -> None:
            step(shared, row, col, state, state, start, end)

        self._leave(now, j, after.col, pages, semaphores)

    def _counts(self, start: At) -> Any:
        """Whether any pair of the tile is within a group."""
        if self.group is None:
            return True
        (r, c), (rows, cols) = self.step.blocks, self.group
        low = start.row // rows * cols
        high = ((start.row + r - 1) // rows + 1) * cols
        return (start.col < high) & (start.col + c > low)

    # Pages of column state. Those of a page's several leaves come and go together.

    def _copies(
        self, block: Any, slot: Any, hbm: Any, pages: Any, semaphores: Any, out: int
    ) -> Any:
        for k, (whole, page) in enumerate(zip(hbm, pages)):
            ends = whole.at[block], page.at[slot]
            source, target = ends[::-1] if out else ends
            yield pltpu.make_async_copy(
                source, target, semaphores.at[out, k, 0 if self._resident else slot]
            )

    @property
    def _resident(self) -> bool:
        return self.slots == self.col_blocks

    def _arrive(self, now: Any, j: Any, *memory: Any) -> Any:
        """Wait until the page of this step is here; returns its slot."""
        last = self.row_blocks * self.col_blocks - 1
        if self._resident:

            @pl.when(now < self.col_blocks)
            def _() -> None:
                for copy in self._copies(j, j, *memory, 0):
                    copy.start()
                    copy.wait()

            return j
        slot, coming = now % self.slots, (now + 1) % self.slots

        @pl.when(now == 0)
        def _() -> None:
            for copy in self._copies(0, 0, *memory, 0):
                copy.start()

        @pl.when(now >= 2)
        def _() -> None:  # the page that was in the next slot has gone
            for copy in self._copies(0, coming, *memory, 1):
                copy.wait()

        @pl.when(now < last)
        def _() -> None:
            for copy in self._copies((j + 1) % self.col_blocks, coming, *memory, 0):
                copy.start()

        for copy in self._copies(0, slot, *memory, 0):
            copy.wait()
        return slot

    def _leave(self, now: Any, j: Any, *memory: Any) -> None:
        """Send this step's page home."""
        last = self.row_blocks * self.col_blocks - 1
        if self._resident:

            @pl.when(now > last - self.col_blocks)
            def _() -> None:
                for copy in self._copies(j, j, *memory, 1):
                    copy.start()
                    copy.wait()

            return
        for copy in self._copies(j, now % self.slots, *memory, 1):
            copy.start()

        @pl.when(now == last)
        def _() -> None:
            for slot in ((now - 1) % self.slots, now % self.slots):
                for copy in self._copies(0, slot, *memory, 1):
                    copy.wait()
