"""How large a tile is: as large as the largest thing that is computed in it may be."""

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


def choose(tile: Tile, rows: Any, cols: Any, params: Any) -> tuple[int, int]:
    """Rows and columns of a tile for two sides of these shapes (this device's parts).

    The tile is traced at ever smaller sizes until the largest array in it, token grids and other
    side products included, takes at most ROOM bytes and at most a quarter of the sides themselves.
    One side is halved at a time, so that a tile at most doubles where the sides do. Then the sides
    are cut evenly.
    """
    n, m = max(1, length(rows)), max(1, length(cols))
    room = min(ROOM, max(nbytes((rows, cols)) // 4, 1 << 16))
    r = c = LARGEST
    while max(r, c) > SMALLEST and _largest(tile, rows, cols, params, min(r, n), min(c, m)) > room:
        r, c = (r, c // 2) if r == c else (r // 2, c)  # fewer, longer passes over the columns
    return _evenly(n, r), _evenly(m, c)


def _evenly(n: int, size: int) -> int:
    """The block size that covers n in as few blocks as `size` does, with the least overlap."""
    blocks = -(-n // size)
    return -(-n // blocks)


def _largest(tile: Tile, rows: Any, cols: Any, params: Any, r: int, c: int) -> int:
    """Bytes of the largest array that evaluating an (r, c) tile makes."""

    def block(tree: Any, size: int) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), tree)

    at = jax.eval_shape(lambda: At(jnp.zeros(r, jnp.int32), jnp.zeros(c, jnp.int32)))
    jaxpr = jax.make_jaxpr(tile)(block(rows, r), block(cols, c), params, at)
    return max((nbytes(out.aval) for out in _outputs(jaxpr.jaxpr)), default=0)


def _outputs(jaxpr: Any) -> Iterator[Any]:
    """Every array that a program makes, those of the programs inside it included."""
    for equation in jaxpr.eqns:
        yield from (var for var in equation.outvars if hasattr(var.aval, "shape"))
        for inner in jaxprs_in_params(equation.params):
            yield from _outputs(inner)
