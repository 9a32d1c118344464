"""The least time that a computation can take on a device, from its data sheet. An estimate.

    bound = roofline(jax.value_and_grad(loss, (0, 1)), (a_BxD, b_BxD), CHIPS["TPU v5 lite"])

No device reaches it: products at the full rate of bfloat16, everything else for nothing; what is
needed of the inputs read and results written once, as if the grid of pairs cost no memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import Var

from pallas_kernels.pair_reduce.flops import operations
from pallas_kernels.pair_reduce.mesh import nbytes
from pallas_kernels.pair_reduce.on_chip import Chip


class Bound(NamedTuple):
    """Seconds on one device: the larger of the two is the bound."""

    products_s: float  # all products of matrices, in bfloat16
    memory_s: float  # inputs and results through HBM, once


def roofline(function: Callable[..., Any], args: Sequence[Any], chip: Chip) -> Bound:
    """The bound of `function(*args)`, which is traced and not run.

    Args:
        args: arrays or their shapes.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    read = {var for equation in jaxpr.eqns for var in equation.invars if isinstance(var, Var)}
    moved = nbytes([var.aval for var in jaxpr.invars if var in read])
    moved += nbytes([var.aval for var in jaxpr.outvars])
    return Bound(operations(jaxpr) / chip.bfloat16, moved / chip.bandwidth)
