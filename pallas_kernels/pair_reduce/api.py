"""The public face of the pair engine: what is reduced over the grid of pairs, and how.

    stats = pair_reduce(tile, rows, cols, reductions, params)

`tile(row, col, params, at)` scores a block of pairs: from r rows and c columns it makes terms of
shape (r, c). `reductions` says which statistics of those terms are wanted. An objective is then a
dozen lines of elementwise maths over the statistics. README.md beside this file teaches it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce import blocks as block_sizes
from pallas_kernels.pair_reduce import checks, differentiate, reference
from pallas_kernels.pair_reduce.choices import (
    Choice,
    Implementation,
    call_name,
    earlier,
    note,
    preferred,
)
from pallas_kernels.pair_reduce.in_front import in_front
from pallas_kernels.pair_reduce.layout import Comm, Layout, layout_of
from pallas_kernels.pair_reduce.statistics import leaf
from pallas_kernels.pair_reduce.sweep import length
from pallas_kernels.pair_reduce.take import take, take_shared
from pallas_kernels.pair_reduce.types import Reduce, Sample, Tile, TopK, Winners
from pallas_kernels.pair_reduce.xla import Problem


def pair_reduce(
    tile: Tile,
    rows: Any,
    cols: Any,
    reductions: Mapping[str, Reduce],
    params: Any = None,
    *,
    mesh_axes: str | Sequence[str] | None = None,
    groups: int | None = None,
    comm: Comm | None = None,
    impl: Implementation | None = None,
    blocks: tuple[int, int] | None = None,
    precision: Any = None,
) -> dict[str, Any]:
    """Statistics of elementwise terms over every pair of a row and a column.

    The grid of pairs is never stored: memory is O(rows + columns), forward and backward. Costs, in
    products of n·m·D: 1 forward; backward 1 and one more for each side that is differentiated (a
    side under `stop_gradient` costs nothing). Reverse mode once: gradients go to every float leaf
    of rows, cols and params; higher orders raise TypeError.

    Args:
        tile: pure function of (row block, column block, params, At) that returns float terms of
            shape (r, c) by name. It sees half-precision leaves widened to float32. A traced array
            it captures is refused: pass it through params.
        rows: pytree whose leaves have the row axis (n) first: embeddings, labels, weights, ...
        cols: the same for the columns (m); n and m may differ.
        reductions: name of the statistic -> Reduce.
        params: pytree of what every tile sees whole, e.g. the logit scale.
        mesh_axes: mesh axes over which both sides are split along their first axis. None: those of
            the mesh in the context that are called slice, data or fsdp; (): every device has all.
            Inside a caller's `shard_map` the axes must be named; sides are then this device's, and
            gradients of params this device's share (`shard_map` adds them up, once).
        groups: pairs count only inside this many equal contiguous groups of the global sides.
        comm: how sides meet on a mesh, `ring`, `gather`, `hierarchical` or, by `pallas_tpu`,
            `fused`; never changes a value.
        impl: which implementation runs, `reference`, `xla`, `pallas_tpu` or `pallas_gpu`; None
            leaves the choice to the engine. A named one runs or raises.
        blocks: rows and columns of a tile; None: from the sizes of what a tile computes.
        precision: of the products in the tile, as for `jax.default_matmul_precision`;
            "BF16_BF16_F32" keeps bfloat16 leaves in bfloat16 multipliers.

    Returns:
        statistic name -> array of shape (n,), (m,) or (), float32 at least (SoftmaxMean of a leaf:
        (n, ...)); for TopK and Sample, Winners.

    Raises:
        ValueError, TypeError: at trace time, naming the argument that is wrong.
        NotImplementedError: at trace time, naming an operation that the kernel of `impl` lacks.
    """
    rows, cols, params = (jax.tree.map(jnp.asarray, tree) for tree in (rows, cols, params))
    n, m = checks.leading_size(rows, "rows"), checks.leading_size(cols, "cols")
    layout = layout_of(mesh_axes, comm, {"rows": n, "cols": m})
    checks.ops(reductions)
    checks.terms(tile, rows, cols, params, reductions)
    problem, rows, cols = _plan(
        tile, rows, cols, reductions, params, layout, groups, comm, impl, blocks, precision
    )
    keys = {
        name: jax.random.key_data(r.op.key)
        for name, r in reductions.items()
        if isinstance(r.op, Sample)
    }
    if problem.impl == "reference" or not n or not m:
        results = reference.pair_reduce(problem, rows, cols, params, keys)
    else:
        results = differentiate.reduced(problem, rows, cols, params, keys)
    return {
        name: _with_carry(r, results[name], rows, cols, layout)
        if isinstance(r.op, TopK | Sample)
        else results[name]
        for name, r in reductions.items()
    }


def pair_sum(
    tile: Tile,
    rows: Any,
    cols: Any,
    coefficients: Mapping[str, float],
    params: Any = None,
    *,
    mesh_axes: str | Sequence[str] | None = None,
    groups: int | None = None,
    comm: Comm | None = None,
    impl: Implementation | None = None,
    blocks: tuple[int, int] | None = None,
    precision: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Σ coefficient · term over every pair, in one pass: 3 products instead of the 4 of a `sum`.

    Where every cotangent of a tile is known beforehand, its gradients are made while its value is,
    and the tile is not evaluated again. Differentiated twice over or not at all, it is as
    `pair_reduce`: a call that nobody differentiates makes no gradient.

    Args:
        coefficients: term -> constant factor. Weights of single rows, columns or pairs belong into
            the term itself.
        Everything else: see `pair_reduce`.

    Returns:
        the total, (); and the same sum row by row, (n,), which is for reading: it has no gradient.
    """
    reductions = {name: Reduce("sum", name, "all") for name in coefficients}
    if not reductions:
        raise ValueError("coefficients: names no term")
    rows, cols, params = (jax.tree.map(jnp.asarray, tree) for tree in (rows, cols, params))
    n, m = checks.leading_size(rows, "rows"), checks.leading_size(cols, "cols")
    layout = layout_of(mesh_axes, comm, {"rows": n, "cols": m})
    checks.terms(tile, rows, cols, params, reductions)
    by_row = {f"{name} by row": Reduce("sum", name, "row") for name in coefficients}
    problem, rows, cols = _plan(
        tile,
        rows,
        cols,
        {**reductions, **by_row},
        params,
        layout,
        groups,
        comm,
        impl,
        blocks,
        precision,
    )
    if problem.impl == "reference" or not n or not m:
        sums = reference.pair_reduce(problem, rows, cols, params, {})
        total = sum(c * sums[name] for name, c in coefficients.items())
        rowwise = sum(c * sums[f"{name} by row"] for name, c in coefficients.items())
        return total, jax.lax.stop_gradient(rowwise)
    return differentiate.summed(problem, rows, cols, params, coefficients)


def _plan(
    tile: Tile,
    rows: Any,
    cols: Any,
    reductions: Mapping[str, Reduce],
    params: Any,
    layout: Layout,
    groups: int | None,
    comm: Comm | None,
    impl: Implementation | None,
    blocks: tuple[int, int] | None,
    precision: Any,
) -> tuple[Problem, Any, Any]:
    """The problem as the engine will solve it, and its two sides."""
    if impl not in (None, *get_args(Implementation)):
        raise ValueError(f"impl: unknown implementation {impl!r}; {get_args(Implementation)}")
    n, m = (length(tree) for tree in (rows, cols))
    here = layout.devices if layout.inside else 1
    for name, size in (("rows", n * here), ("cols", m * here)):
        if groups is not None and (groups < 1 or size % groups):
            raise ValueError(f"groups: {size} {name} do not fall into {groups} equal groups")
    checks.blocks(blocks)
    call = call_name(tile, rows, cols, layout)
    kept = earlier(call)
    if kept is not None:
        impl, blocks = impl or kept.impl, blocks or kept.blocks
        if layout.comm and comm is None and kept.comm:
            layout = layout._replace(comm=kept.comm)
    impl = impl or preferred()
    if layout.comm == "fused":
        if impl not in (None, "pallas_tpu"):
            raise ValueError(f'comm: "fused" is a ring inside a TPU kernel; {impl} has none')
        impl = "pallas_tpu"
    if impl == "reference" and layout.inside:
        raise ValueError("impl: the reference does not run inside a shard_map; xla does")
    if impl == "pallas_gpu" and n and m:
        tile, rows, cols, reductions = in_front(tile, rows, cols, params, reductions)
    if blocks is None and n and m:
        parts = 1 if layout.inside else layout.devices

        def part(tree: Any) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((len(x) // parts, *x.shape[1:]), x.dtype), tree
            )

        blocks = block_sizes.choose(tile, part(rows), part(cols), params, impl or "xla")
    choice = Choice(impl or "xla", layout.comm, blocks or (1, 1))
    note(call, choice)
    problem = Problem(tile, dict(reductions), layout, choice.blocks, groups, precision, choice.impl)
    return problem, rows, cols


def _with_carry(
    reduce: Reduce, found: tuple[jax.Array, jax.Array], rows: Any, cols: Any, layout: Layout
) -> Winners:
    value, index = found
    other = rows if reduce.per == "col" else cols
    op: Any = reduce.op
    carry = {
        name: take_shared(leaf(other, name), index[:, 1], layout)
        if reduce.per == "all"
        else take(leaf(other, name), index, mesh_axes=layout.axes)
        for name in op.carry
    }
    return Winners(value, index, carry)
