"""Sweeps over sides that are split across the devices of a mesh.

    gather        every device gets the whole moving side: one all-gather, O(B·D) memory
    ring          the moving side goes round in blocks, with what was accumulated for it; the next
                  block is under way while this one computes; O(B/P·D) memory
    hierarchical  a ring along the first axis, inside each of its steps a ring along the others:
                  slow links between slices carry each block once, hidden behind a whole inner ring

    fused         a ring that a TPU kernel carries itself (`pallas_tpu_ring.py`): no step of it ends
                  before the next begins

The side with fewer bytes moves (its leaves and what is accumulated for it); the other stays.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce.layout import Layout, typed
from pallas_kernels.pair_reduce.sweep import Merge, State, Sweep, Visit, length
from pallas_kernels.pair_reduce.types import At


def sweep_mesh(
    visit: Visit,
    rows: Any,
    cols: Any,
    state: State,
    *,
    layout: Layout,
    blocks: tuple[int, int],
    groups: int | None,
    sweep: Sweep,
    merge: Merge = None,
    join: bool = True,
    block_first: bool = False,
) -> State:
    """`sweep` over all devices' rows and columns; each device gets what belongs to its own.

    Args:
        rows, cols: this device's parts.
        state: the empty state, for this device's parts.
        groups: into how many equal contiguous groups either whole side falls.
        sweep: visits all pairs on one device.
        merge: joins two states, of whichever side; None: they are sums.
        block_first: as in `circulate`.
        join: whether `all` is joined over the devices; else each keeps its part.

    Returns:
        the state of this device's rows and columns; `all` is the same on every device.
    """
    n, m = length(rows), length(cols)
    group = None if groups is None else (n * layout.devices // groups, m * layout.devices // groups)
    options: dict[str, Any] = {"blocks": blocks, "group": group}
    joins: dict[str, Any] = {"merge": merge, "empty": state.all}
    if not layout.axes:
        zero = jnp.int32(0)
        return sweep(visit, rows, cols, state, At(zero, zero), **options, **joins)

    me = jax.lax.axis_index(layout.axes)
    rows_move = nbytes((rows, state.row)) < nbytes((cols, state.col))
    home = state.col if rows_move else state.row

    def visit_block(block: Any, moving: Any, rest: Any, origin: Any) -> tuple[Any, Any]:
        """Meet a block that belongs to device `origin` of those that hold as much."""
        home, over_all = rest
        if rows_move:
            start = At(origin * length(block), me * m)
            after = sweep(
                visit, block, cols, State(moving, home, over_all), start, **options, **joins
            )
            return after.row, (after.col, after.all)
        start = At(me * n, origin * length(block))
        after = sweep(visit, rows, block, State(home, moving, over_all), start, **options, **joins)
        return after.col, (after.row, after.all)

    block, moving = (rows, state.row) if rows_move else (cols, state.col)
    if layout.comm == "fused":
        from pallas_kernels.pair_reduce.pallas_tpu_ring import ring

        after = ring(visit, rows, cols, state, layout=layout, rows_move=rows_move, **options)
        moving, home = (after.row, after.col) if rows_move else (after.col, after.row)
        over_all = after.all
    elif layout.comm == "gather":
        whole = _gathered(block, layout.axes)
        parts = jax.tree.map(lambda x: jnp.concatenate([x] * layout.devices), moving)
        moving, (home, over_all) = visit_block(whole, parts, (home, state.all), 0)
        moving = _scattered(moving, layout, merge)
    else:
        levels = rings(layout)
        span = None
        if len(levels) == 1 and groups is not None:
            span = _devices_of_a_group(layout.devices, groups)
        moving, (home, over_all) = circulate(
            visit_block, levels, block, moving, (home, state.all), span, block_first
        )
    if join:
        over_all = _joined(over_all, layout, merge)
    return State(moving, home, over_all) if rows_move else State(home, moving, over_all)


def rings(layout: Layout) -> list[tuple[Any, int]]:
    """(axis or axes, size) of the rings that blocks go round, slowest first: rings inside rings.

    jax numbers the devices of several axes in the order of the mesh when it permutes, in the given
    order else: where the two differ, no ring goes over several axes.
    """
    in_order = tuple(a for a in jax.sharding.get_abstract_mesh().axis_names if a in layout.axes)
    if layout.comm == "hierarchical" or layout.axes != in_order:
        return list(zip(layout.axes, layout.sizes))
    return [(layout.axes, layout.devices)] if layout.axes else []


def circulate(
    visit: Callable[[Any, Any, Any, Any], tuple[Any, Any]],
    levels: list[tuple[Any, int]],
    block: Any,
    moving: Any,
    rest: Any,
    span: int | None = None,
    block_first: bool = False,
) -> tuple[Any, Any]:
    """Send every device's block past every other and home again.

    Args:
        visit: (block, what is accumulated for it, what stays, its device) -> the last two anew.
        levels: (axis or axes, size), slowest first: rings inside rings.
        span: of one level, how many neighbouring devices form a ring; None: all.
        block_first: a block has come before its state leaves, so that a TPU's scheduler sends it
            while this one computes, and not beside the state.

    Returns:
        what was accumulated for this device's block, and what stayed.
    """
    if not levels:
        return visit(block, moving, rest, jnp.int32(0))
    (axis, size), *inner = levels
    span = span or size
    below = math.prod(s for _, s in inner)
    me = jax.lax.axis_index(axis)
    ring = [(i, i - i % span + (i + 1) % span) for i in range(size)]

    def onward(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, ring), tree)

    def meet(block: Any, moving: Any, rest: Any, hops: Any) -> tuple[Any, Any]:
        origin = me - me % span + (me - hops) % span
        return circulate(
            lambda b, m, r, below_me: visit(b, m, r, origin * below + below_me),
            inner,
            block,
            moving,
            rest,
            block_first=block_first,
        )

    def step(hops: Any, carry: Any) -> Any:
        block, moving, rest = carry
        coming = onward(block)
        moving, rest = meet(block, moving, rest, jnp.asarray(hops, jnp.int32))
        if block_first:
            coming, moving = jax.lax.optimization_barrier((coming, moving))
        return coming, onward(moving), rest

    if span > 1:
        block, moving, rest = jax.lax.fori_loop(0, span - 1, step, (block, moving, rest))
    moving, rest = meet(block, moving, rest, jnp.int32(span - 1))
    return (onward(moving) if span > 1 else moving), rest


def nbytes(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _devices_of_a_group(devices: int, groups: int) -> int:
    """How many neighbouring devices share a group: only they need to meet."""
    if groups % devices == 0:
        return 1
    return devices // groups if devices % groups == 0 else devices


def _gathered(tree: Any, axes: tuple[str, ...]) -> Any:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree)


def _scattered(tree: Any, layout: Layout, merge: Merge) -> Any:
    """Every device has a part of everybody's state: each gets all parts of its own, joined."""
    if merge is None:
        return jax.tree.map(lambda x: jax.lax.psum_scatter(x, layout.axes, tiled=True), tree)

    def exchanged(x: jax.Array) -> jax.Array:
        parts = x.reshape(layout.devices, -1, *x.shape[1:])
        return jax.lax.all_to_all(parts, layout.axes, 0, 0)

    return _folded(jax.tree.map(exchanged, tree), layout.devices, merge)


def _joined(tree: Any, layout: Layout, merge: Merge) -> Any:
    """The joint state of all devices, on each of them."""
    if merge is None:
        return jax.tree.map(lambda x: jax.lax.psum(x, layout.axes), tree)
    parts = jax.tree.map(lambda x: jax.lax.all_gather(x, layout.axes), tree)
    whole = _folded(parts, layout.devices, merge)
    if not typed(whole):
        return whole
    first = jax.lax.axis_index(layout.axes) == 0  # a psum, for its type: the same on every device
    return jax.tree.map(lambda x: jax.lax.psum(jnp.where(first, x, 0), layout.axes), whole)


def _folded(parts: Any, count: int, merge: Callable[[Any, Any], Any]) -> Any:
    """The parts along the leading axis, joined in their order."""
    first = jax.tree.map(lambda x: x[0], parts)
    return jax.lax.fori_loop(
        1, count, lambda i, whole: merge(whole, jax.tree.map(lambda x: x[i], parts)), first
    )
