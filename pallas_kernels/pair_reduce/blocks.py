"""How large a tile is: as large as what is computed in it may be."""

import importlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from pallas_kernels.pair_reduce.mesh import nbytes
from pallas_kernels.pair_reduce.sweep import length
from pallas_kernels.pair_reduce.types import At, Tile

LARGEST = 1024  # rows or columns: beyond it products gain nothing on any device seen so far
ROOM = 4 << 20  # bytes of the largest intermediate: 1024 × 1024 float32
SMALLEST = 8


def choose(tile: Tile, rows: Any, cols: Any, params: Any, impl: str) -> tuple[int, int]:
    """Rows and columns of a tile for two sides of these shapes (this device's parts).

    The tile is traced at ever smaller sizes until it fits: for `xla`, until the largest array in
    it, token grids and other side products included, takes at most ROOM bytes and at most a quarter
    of the sides themselves; for a kernel, until it fits the memory next to the units that compute,
    as `fits` of its file says. One side is halved at a time, so that a tile at most doubles where
    the sides do. Then the sides are cut evenly.
    """
    n, m = max(1, length(rows)), max(1, length(cols))
    if impl in ("xla", "reference"):
        room = min(ROOM, max(nbytes((rows, cols)) // 4, 1 << 16))
        r, c = LARGEST, LARGEST
        while max(r, c) > SMALLEST and _largest(*_cut(tile, rows, cols, params, r, c)) > room:
            r, c = _next(r, c)
        return _evenly(n, r), _evenly(m, c)
    kernel = importlib.import_module(f"pallas_kernels.pair_reduce.{impl}")
    r, c = kernel.LARGEST, kernel.LARGEST
    while max(r, c) > kernel.SMALLEST and not kernel.fits(*_cut(tile, rows, cols, params, r, c)):
        r, c = _next(r, c, kernel.SMALLEST, kernel.LANES)
    return min(r, n), min(c, m)


def _next(r: int, c: int, smallest: int = SMALLEST, lanes: int = SMALLEST) -> tuple[int, int]:
    """The next smaller tile: rather more rows than columns, for fewer passes over the columns, but
    not fewer columns than a device computes on at once, if that can be helped.
    """
    if r > smallest and (c < r or c <= lanes):
        return r // 2, c
    return r, c // 2


def _cut(tile: Tile, rows: Any, cols: Any, params: Any, r: int, c: int) -> tuple[Any, ...]:
    """The arguments of a tile, as shapes."""

    def block(tree: Any, size: int) -> Any:
        size = min(size, length(tree))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), tree)

    row, col = block(rows, r), block(cols, c)
    r, c = length(row), length(col)
    at = jax.eval_shape(lambda: At(jnp.zeros(r, jnp.int32), jnp.zeros(c, jnp.int32)))
    return tile, row, col, params, at


def _evenly(n: int, size: int) -> int:
    """The block size that covers n in as few blocks as `size` does, with the least overlap."""
    blocks = -(-n // size)
    return -(-n // blocks)


def _largest(tile: Tile, *args: Any) -> int:
    """Bytes of the largest array that evaluating a tile makes."""
    jaxpr = jax.make_jaxpr(tile)(*args)
    return max((nbytes(out.aval) for out in _outputs(jaxpr.jaxpr)), default=0)


def _outputs(jaxpr: Any) -> Iterator[Any]:
    """Every array that a program makes, those of the programs inside it included."""
    for equation in jaxpr.eqns:
        yield from (var for var in equation.outvars if hasattr(var.aval, "shape"))
        for inner in jaxprs_in_params(equation.params):
            yield from _outputs(inner)
