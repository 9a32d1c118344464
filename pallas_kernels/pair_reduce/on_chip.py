"""What a chip has, and how much of it the tile of a kernel needs.

Sizes and rates are the vendors': Google Cloud's pages of v4, v5e, v5p, v6e and TPU7x, NVIDIA's data
sheets of A100 SXM and H100 SXM (dense bfloat16), for one device as jax sees it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params

from pallas_kernels.pair_reduce.statistics import at_least_float32
from pallas_kernels.pair_reduce.types import At, Tile

MIB = 1 << 20
Size = Callable[[tuple[int, ...], Any], int]


class Chip(NamedTuple):
    """One device.

    Attributes:
        on_chip: bytes next to the units that compute: VMEM of a TPU core, registers of a GPU's
            streaming multiprocessor.
        bfloat16: operations of bfloat16 products a second, two to a multiply-add.
        bandwidth: bytes of HBM a second.
    """

    on_chip: int
    bfloat16: float
    bandwidth: float


CHIPS = {
    "TPU v4": Chip(16 * MIB, 275e12, 1.23e12),
    "TPU v5 lite": Chip(128 * MIB, 197e12, 0.82e12),
    "TPU v5": Chip(64 * MIB, 459e12, 2.76e12),
    "TPU v6 lite": Chip(128 * MIB, 918e12, 1.64e12),
    "TPU7x": Chip(64 * MIB, 1153e12, 3.7e12),
    "NVIDIA A100-SXM4-80GB": Chip(256 << 10, 312e12, 2.04e12),
    "NVIDIA H100 80GB HBM3": Chip(256 << 10, 989e12, 3.35e12),
}
KNOWN_AS = {
    "TPU v5e": "TPU v5 lite",
    "TPU v5p": "TPU v5",
    "TPU v6e": "TPU v6 lite",
    "A100": "NVIDIA A100-SXM4-80GB",
    "H100": "NVIDIA H100 80GB HBM3",
}
SMALLEST = {"tpu": CHIPS["TPU v4"], "gpu": CHIPS["NVIDIA A100-SXM4-80GB"]}


def device_kind() -> str:
    """The kind of the devices that a call is for: of the mesh in the context, else jax's own."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return device.device_kind if device is not None else jax.devices()[0].device_kind


def chip(kind: str, platform: str) -> Chip:
    """The chip of a device kind; of one that is not known, the smallest of its platform."""
    kind = KNOWN_AS.get(kind, kind)
    return CHIPS.get(kind, SMALLEST[platform])


def live_bytes(tile: Tile, row: Any, col: Any, params: Any, at: At, size: Size) -> int:
    """How much the values of a tile and its derivative take at most at one time.

    Args:
        row, col, params, at: arguments of the tile, as shapes.
        size: (shape, dtype) -> bytes that the device takes for an array.

    Returns:
        bytes of what is computed; the blocks themselves are not counted.
    """
    row, col, params = (
        jax.tree.map(lambda x: jax.eval_shape(at_least_float32, x), tree)
        for tree in (row, col, params)
    )
    jaxpr = jax.make_jaxpr(_with_derivative(tile))(row, col, params, at).jaxpr
    return _peak(jaxpr, size)


def _with_derivative(tile: Tile) -> Callable[..., Any]:
    """The tile and its pull-back to every float leaf, as the backward sweep computes them."""

    def both(row: Any, col: Any, params: Any, at: At) -> Any:
        leaves, structure = jax.tree.flatten((row, col, params))
        where = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

        def terms(floats: list[jax.Array]) -> list[jax.Array]:
            given = list(leaves)
            for i, x in zip(where, floats):
                given[i] = x
            row, col, params = jax.tree.unflatten(structure, given)
            made = tile(row, col, params, at).values()
            return [x for x in made if jnp.issubdtype(x.dtype, jnp.floating)]

        out, pull = jax.vjp(terms, [leaves[i] for i in where])
        return out, pull([x + x for x in out])

    return both


# What takes no memory of its own, for no number of it is computed.
FREE = {"broadcast_in_dim", "reshape", "squeeze", "transpose", "iota", "copy"}


def _peak(jaxpr: Jaxpr, size: Size) -> int:
    last = {
        var: t
        for t, equation in enumerate(jaxpr.eqns)
        for var in equation.invars
        if not isinstance(var, Literal)
    }
    last |= {var: len(jaxpr.eqns) for var in jaxpr.outvars if not isinstance(var, Literal)}
    for equation in reversed(jaxpr.eqns):  # what takes no memory of its own lies in its operand
        if equation.primitive.name in FREE:
            until = max(last.get(var, 0) for var in equation.outvars)
            for var in equation.invars:
                if not isinstance(var, Literal):
                    last[var] = max(last[var], until)
    held: dict[Any, int] = {}
    most = 0
    for t, equation in enumerate(jaxpr.eqns):
        inside = max((_peak(p, size) for p in jaxprs_in_params(equation.params)), default=0)
        most = max(most, sum(held.values()) + inside)
        for var in equation.outvars:
            free = equation.primitive.name in FREE
            aval: Any = var.aval
            held[var] = 0 if free else size(aval.shape, aval.dtype)
        most = max(most, sum(held.values()))
        held = {var: taken for var, taken in held.items() if last.get(var, t) > t}
    return most


def tiled_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of an array in the VMEM of a TPU.

    A matrix is there in words of (8, 128); an array of more axes is many matrices of which rows and
    columns of the tile are the axes, so that hardly anything is lost.
    """
    item = max(4, jnp.dtype(dtype).itemsize)  # flags and half precision are computed as 32 bits
    if len(shape) > 2:
        return math.prod(shape) * item
    a, b = {0: (1, 1), 1: (*shape, 1)}.get(len(shape), shape)
    return -(-a // 8) * 8 * -(-b // 128) * 128 * item
