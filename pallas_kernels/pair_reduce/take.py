"""Rows of a split array by their global positions, wherever they are."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce.checks import leading_size
from pallas_kernels.pair_reduce.layout import Layout, layout_of, varying
from pallas_kernels.pair_reduce.mesh import circulate, rings
from pallas_kernels.pair_reduce.statistics import aligned, at_least_float32


def take(tree: Any, index: jax.Array, *, mesh_axes: str | Sequence[str] | None = None) -> Any:
    """`leaf[index]` for every leaf, across devices.

    Differentiable in the float leaves (by scatter-add); zero, without a gradient, where an index is
    negative. On a mesh the leaves go round in a ring, so no device ever holds more than one block
    of another beside its result.

    Args:
        tree: pytree, (m, ...) leaves, split over `mesh_axes` along the first axis.
        index: integers (n, ...), global positions below m, split likewise.
        mesh_axes: as in `pair_reduce`.

    Returns:
        the same pytree with leaves (n, ..., ...).
    """
    tree, index = jax.tree.map(jnp.asarray, tree), jnp.asarray(index)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"index: is {index.dtype}, not an integer")
    sizes = {"tree": leading_size(tree, "tree"), "index": leading_size(index, "index")}
    layout = layout_of(mesh_axes, None, sizes)
    tree, index = varying(layout, (tree, index), (tree, index))
    return jax.tree.map(lambda x: _take(layout, jax.typeof(x), x, index), tree)


def take_shared(x: jax.Array, index_K: jax.Array, layout: Layout) -> jax.Array:
    """`x[index]` (k, ...) on every device, for an index that every device has; as `take` else."""
    if not layout.inside:
        found = _rows(x, index_K)
        return jnp.where(aligned(index_K >= 0, found), found, 0)
    local, here = _local(index_K, jax.lax.axis_index(layout.axes), len(x))
    found = _rows(x, local)
    return jax.lax.psum(jnp.where(aligned(here, found), found, 0), layout.axes)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _take(layout: Layout, like: Any, x: jax.Array, index: jax.Array) -> jax.Array:
    """`x[index]`; `like` is the shape and dtype of x."""
    return layout.run(
        partial(_collect, layout), in_specs=(layout.split, layout.split), out_specs=layout.split
    )(x, index)


def _take_forward(layout: Layout, like: Any, x: jax.Array, index: jax.Array) -> Any:
    return _take(layout, like, x, index), index


def _take_backward(layout: Layout, like: Any, index: jax.Array, cotangent: jax.Array) -> Any:
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return None, None
    d_x = layout.run(
        partial(_return, layout, like.shape[0]),
        in_specs=(layout.split, layout.split),
        out_specs=layout.split,
    )(index, cotangent)
    return d_x.astype(like.dtype), None


_take.defvjp(_take_forward, _take_backward)


def _collect(layout: Layout, x: jax.Array, index: jax.Array) -> jax.Array:
    def meet(block: jax.Array, nothing: tuple[()], out: jax.Array, origin: Any) -> Any:
        local, here = _local(index, origin, len(block))
        found = _rows(block, local)
        return nothing, jnp.where(aligned(here, found), found, out)

    out = varying(layout, (x, index), jnp.zeros(index.shape + x.shape[1:], x.dtype))
    return circulate(meet, rings(layout), x, (), out)[1]


def _return(layout: Layout, m: int, index: jax.Array, cotangent: jax.Array) -> jax.Array:
    m_here = m if layout.inside else m // layout.devices

    def meet(nothing: tuple[()], d_block: jax.Array, rest: tuple[()], origin: Any) -> Any:
        local, here = _local(index, origin, m_here)
        given = at_least_float32(cotangent)
        given = jnp.where(aligned(here, given), given, 0)
        return d_block.at[jnp.where(here, local, m_here)].add(given, mode="drop"), rest

    tail = cotangent.shape[index.ndim :]
    d_x = jnp.zeros((m_here, *tail), jnp.promote_types(cotangent.dtype, jnp.float32))
    d_x = varying(layout, (index, cotangent), d_x)
    return circulate(meet, rings(layout), (), d_x, ())[0]


def _local(index: jax.Array, origin: Any, size: int) -> tuple[jax.Array, jax.Array]:
    local = index - origin * size
    return local, (index >= 0) & (local >= 0) & (local < size)


def _rows(x: jax.Array, local: jax.Array) -> jax.Array:
    """`x[local]`, whatever where there is no such row."""
    if not len(x):
        return jnp.zeros(local.shape + x.shape[1:], x.dtype)
    return x[jnp.clip(local, 0, len(x) - 1)]
