"""The ring of devices inside one TPU kernel: blocks travel while tiles are computed.

The side that moves is cut into pages. A device keeps two slots of all pages, one for each of two
neighbouring hops, and in hop h, for page k,

    waits until the page's leaves and the state that was accumulated for it have arrived,
    sends the leaves on at once, to the other slot of the device on its right,
    visits the page with all blocks of the side that stays,
    sends the state on, while the next page is computed.

After as many hops as there are devices the state is home. A page's slot may be written again when
its owner has done with it and has sent it on: that is what the two capacity semaphores count, one
for leaves and one for state. Everything comes and goes in the order of the pages, so a count will
do. Links carry (P − 1) times the leaves and P times the state of a device; only the last page's
state is ever waited for with nothing to compute.
"""

import math
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.pair_reduce.interpreted import interpretation
from pallas_kernels.pair_reduce.kernel_step import Step, step
from pallas_kernels.pair_reduce.layout import Layout, shape_like
from pallas_kernels.pair_reduce.paging import Paging, when_first
from pallas_kernels.pair_reduce.pallas_tpu import (
    PIECES,
    page_spec,
    room_for_state,
    tile_size,
    vmem,
)
from pallas_kernels.pair_reduce.stored import Stored
from pallas_kernels.pair_reduce.sweep import State, Visit, length
from pallas_kernels.pair_reduce.types import At

LEAVES, STATE = 0, 1  # which of the two things that travel
COLLECTIVE = 7  # id of the barrier semaphore


def ring(
    visit: Visit,
    rows: Any,
    cols: Any,
    state: State,
    *,
    layout: Layout,
    blocks: tuple[int, int],
    group: tuple[int, int] | None,
    rows_move: bool,
) -> State:
    """Visit all pairs of all devices' rows and columns; each gets the state of its own, and its
    part of the state over all pairs.

    Args:
        rows, cols: this device's parts.
        rows_move: whether rows travel and columns stay, or the reverse.

    Raises:
        ValueError: two slots of what travels do not fit into VMEM.
    """
    n, m = length(rows), length(cols)
    me = jax.lax.axis_index(layout.axes)
    mine = At(me * n, me * m)
    r, c = tile_size(blocks, n, m)
    body, row_leaves, col_leaves = step(visit, rows, cols, state, mine, (r, c), group, PIECES)
    counts = -(-n // r), -(-m // c)
    pages, stays = counts if rows_move else counts[::-1]
    moving = body.rows if rows_move else body.cols
    moving_state = body.state.row if rows_move else body.state.col
    staying_state = body.state.col if rows_move else body.state.row
    paging = Paging.of(staying_state, layout.devices * pages, stays, room_for_state())
    leaf_bytes, state_bytes = (
        pages * sum(leaf.page_bytes for leaf in some) for some in (moving, moving_state)
    )
    room = vmem() // 2
    if 2 * (leaf_bytes + state_bytes) > room:
        need = 2 * (leaf_bytes + state_bytes) / 2**20
        raise ValueError(
            f'comm: "fused" keeps two slots of what travels in VMEM: {need:.0f} MiB, and there are '
            f'{room / 2**20:.0f}; take "ring"'
        )
    remote = (layout.devices - 1) * leaf_bytes + layout.devices * state_bytes

    arrays = body.paged_inputs(mine, At(mine.row + n, mine.col + m), row_leaves, col_leaves)
    kept = body.paged_state(state)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)

    def side(some: list[Stored], moves: bool) -> list[pl.BlockSpec]:
        return [anywhere if moves else page_spec(s, lambda h, k, i: i) for s in some]

    state_specs = [
        *(anywhere for _ in (*body.state.row, *body.state.col)),
        *(page_spec(s, lambda h, k, i: 0) for s in body.state.all),
    ]
    out = pl.pallas_call(
        _Kernel(body, layout, pages, stays, paging, group, rows_move).run,
        grid=(layout.devices, pages, stays),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(page_spec(s, lambda h, k, i: 0) for s in body.shared),
            *side(body.rows, rows_move),
            *side(body.cols, not rows_move),
            *state_specs,
        ],
        out_specs=state_specs,
        out_shape=[shape_like(x.shape, x.dtype, (arrays, kept)) for x in kept],
        scratch_shapes=[
            *paging.scratch,
            *(pltpu.VMEM((2, pages, *s.page), s.kernel_dtype) for s in (*moving, *moving_state)),
            pltpu.SemaphoreType.DMA((2, max(1, len(moving)), pages)),  # leaves arrive, by slot
            pltpu.SemaphoreType.DMA((max(1, len(moving)),)),  # leaves are sent
            pltpu.SemaphoreType.DMA((2, max(1, len(moving_state)), pages)),
            pltpu.SemaphoreType.DMA((max(1, len(moving_state)),)),
            pltpu.SemaphoreType.DMA,  # copies from and to this device's HBM
            pltpu.SemaphoreType.REGULAR((2,)),  # how many pages of the right one's slots are free
        ],
        input_output_aliases={len(arrays) + i: i for i in range(len(kept))},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",) * 3,
            vmem_limit_bytes=vmem(),
            collective_id=COLLECTIVE,
            has_side_effects=True,
        ),
        cost_estimate=body.cost(layout.devices * pages * stays, remote),
        interpret=interpretation(),
        name="pair_reduce_ring",
    )(*arrays, *kept)
    return body.whole_state(out, state)


class _Kernel(NamedTuple):
    """The kernel of one device."""

    step: Step
    layout: Layout
    pages: int  # of what moves
    stays: int  # blocks of what stays
    paging: Paging
    group: tuple[int, int] | None
    rows_move: bool

    @property
    def devices(self) -> int:
        return self.layout.devices

    def run(self, *refs: Any) -> None:
        step = self.step
        places, shared, row, col, before, after, scratch = step.sorted(refs)
        held, scratch = scratch[: len(self.paging.scratch)], scratch[len(self.paging.scratch) :]
        links = self._links(scratch)
        moving, staying = (row, col) if self.rows_move else (col, row)
        homes, stay_state = (after.row, after.col) if self.rows_move else (after.col, after.row)
        hop, page, block = (pl.program_id(axis) for axis in range(3))
        turn = hop * self.pages + page  # pages are met, sent and freed in this order
        now = turn * self.stays + block
        slot = hop % 2

        @pl.when(now == 0)
        def _() -> None:
            links.meet_neighbours()
            links.load(LEAVES, moving)
            links.load(STATE, homes)

        when_first(now == 0, before.all, after.all)

        @pl.when(block == 0)
        def _() -> None:
            @pl.when(hop > 0)
            def _() -> None:
                links.arrived(LEAVES, slot, page)
                links.arrived(STATE, slot, page)

            @pl.when(hop < self.devices - 1)
            def _() -> None:
                links.send(LEAVES, hop, page)

        here = self.paging.arrive(now, stay_state, held)
        first, last = (places[0], places[2]) if self.rows_move else (places[1], places[3])
        me = jax.lax.axis_index(self.layout.axes)
        origin = jax.lax.rem(me - hop + self.devices, self.devices)
        moved = first + (origin - me) * (last - first)
        ends = moved + last - first
        length = step.blocks[0 if self.rows_move else 1]
        goes, state = links.page(LEAVES, slot, page), links.page(STATE, slot, page)
        if self.rows_move:
            start = At(moved + page * length, places[1] + block * step.blocks[1])
            end, seen = At(ends, places[3]), State(state, here, after.all)
            sides = goes, staying
        else:
            start = At(places[0] + block * step.blocks[0], moved + page * length)
            end, seen = At(places[2], ends), State(here, state, after.all)
            sides = staying, goes

        @pl.when(step.counts(start, self.group))
        def _() -> None:
            step(shared, *sides, seen, seen, start, end)

        self.paging.leave(now, stay_state, held)

        @pl.when(block == self.stays - 1)
        def _() -> None:
            @pl.when(hop < self.devices - 1)
            def _() -> None:  # the leaves have been on their way while this page was computed
                links.sent(LEAVES, slot, page)

                @pl.when(hop < self.devices - 2)
                def _() -> None:
                    links.free(LEAVES)

            @pl.when(turn > 0)
            def _() -> None:
                last = turn - 1
                links.sent(STATE, last // self.pages % 2, last % self.pages)

                @pl.when(last < (self.devices - 1) * self.pages)
                def _() -> None:
                    links.free(STATE)

            links.send(STATE, hop, page)

        @pl.when(now == self.devices * self.pages * self.stays - 1)
        def _() -> None:
            links.sent(STATE, slot, page)
            for k in range(self.pages):
                links.arrived(STATE, self.devices % 2, k)
            links.store(self.devices % 2, homes)

    def _links(self, scratch: Any) -> "_Links":
        moving = self.step.rows if self.rows_move else self.step.cols
        state = self.step.state.row if self.rows_move else self.step.state.col
        leaves, scratch = scratch[: len(moving)], scratch[len(moving) :]
        states, scratch = scratch[: len(state)], scratch[len(state) :]
        arrive_leaves, send_leaves, arrive_state, send_state, local, capacity = scratch
        return _Links(
            self.layout,
            self.pages,
            (leaves, states),
            (arrive_leaves, arrive_state),
            (send_leaves, send_state),
            local,
            capacity,
        )


class _Links(NamedTuple):
    """What a device has of what travels, and its two neighbours."""

    layout: Layout
    pages: int
    slots: tuple[list[Any], list[Any]]  # of leaves, of state: references (2, pages, *page)
    arrive: tuple[Any, Any]  # DMA semaphores (slot, leaf, page)
    sending: tuple[Any, Any]  # DMA semaphores (leaf,)
    local: Any
    capacity: Any

    def page(self, what: int, slot: Any, page: Any) -> list[Any]:
        return [ref.at[slot, page] for ref in self.slots[what]]

    def meet_neighbours(self) -> None:
        """Nobody writes to a device whose kernel has not begun."""
        barrier = pltpu.get_barrier_semaphore()
        for by in (-1, 1):
            pl.semaphore_signal(barrier, 1, device_id=self._neighbour(by))
        pl.semaphore_wait(barrier, 2)

    def load(self, what: int, hbm: list[Any]) -> None:
        """This device's own into slot 0."""
        for whole, slots in zip(hbm, self.slots[what]):
            copy = pltpu.make_async_copy(whole, slots.at[0], self.local)
            copy.start()
            copy.wait()

    def store(self, slot: int, hbm: list[Any]) -> None:
        """The state that came home."""
        for whole, slots in zip(hbm, self.slots[STATE]):
            copy = pltpu.make_async_copy(slots.at[slot], whole, self.local)
            copy.start()
            copy.wait()

    def send(self, what: int, hop: Any, page: Any) -> None:
        """To the other slot of the right neighbour, as soon as it is free."""

        @pl.when(hop > 0)
        def _() -> None:
            pl.semaphore_wait(self.capacity.at[what], 1)

        for copy in self._copies(what, hop % 2, page):
            copy.start()

    def sent(self, what: int, slot: Any, page: Any) -> None:
        """Wait until a page that was sent from `slot` has left."""
        for copy in self._copies(what, slot, page):
            copy.wait_send()

    def arrived(self, what: int, slot: Any, page: Any) -> None:
        """Wait until a page is in `slot`: as large a copy as the left neighbour's."""
        for copy in self._copies(what, 1 - slot, page):
            copy.wait_recv()

    def free(self, what: int) -> None:
        """Tell the left neighbour that one more page may be written."""
        pl.semaphore_signal(self.capacity.at[what], 1, device_id=self._neighbour(-1))

    def _copies(self, what: int, slot: Any, page: Any) -> list[Any]:
        return [
            pltpu.make_async_remote_copy(
                src_ref=ref.at[slot, page],
                dst_ref=ref.at[1 - slot, page],
                send_sem=self.sending[what].at[i],
                recv_sem=self.arrive[what].at[1 - slot, i, page],
                device_id=self._neighbour(1),
            )
            for i, ref in enumerate(self.slots[what])
        ]

    def _neighbour(self, by: int) -> dict[str | tuple[str, ...], Any]:
        """The coordinates of the next device (1) or the one before (-1)."""
        devices = self.layout.devices
        at = jax.lax.rem(jax.lax.axis_index(self.layout.axes) + by + devices, devices)
        found: dict[str | tuple[str, ...], Any] = {}
        for i, (axis, size) in enumerate(zip(self.layout.axes, self.layout.sizes)):
            below = math.prod(self.layout.sizes[i + 1 :])
            found[axis] = jax.lax.rem(jax.lax.div(at, below), size)
        return found
