"""How many products a traced function takes: what an objective costs, whatever the machine."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params


def products(function: Callable[..., Any], *args: Any, of: tuple[int, int, int]) -> float:
    """Multiply-adds of every matrix product in `function(*args)`, in units of n·m·D.

    The function is traced, not run. A loop counts as often as it goes round, a `shard_map` once for
    each device, of a `cond` the branch that costs most. Loops whose length is not in the program
    (`groups` makes such) count once.

    Args:
        args: arrays or jax.ShapeDtypeStructs.
        of: n, m and D: one product of an (n, D) and a (D, m) matrix is 1.
    """
    return _multiply_adds(jax.make_jaxpr(function)(*args).jaxpr) / math.prod(of)


def _multiply_adds(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [_multiply_adds(j) for j in jaxprs_in_params(equation.params)]
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            shape = equation.outvars[0].aval.shape
            total += math.prod(shape) * math.prod(lhs[axis] for axis in contracted)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner) * _times(name, params)
    return total


def _times(name: str, params: Any) -> int:
    """How often the programs inside an equation run."""
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return 1
