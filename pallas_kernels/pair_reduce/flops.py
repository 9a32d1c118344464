"""How many products a program makes: what its formula costs, whatever machine runs it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params


def products(function: Callable[..., Any], *args: Any, unit: float) -> float:
    """Floating point operations of all matrix products that a call of `function` makes, in `unit`s.

    The program is traced, not run. A loop counts as often as it is passed through (a `while` whose
    length only running tells: once), of branches the dearest, a `shard_map` for all its devices.

    Args:
        args: arrays or their shapes.
        unit: operations that count as one, e.g. 2·B·B·D for one product of B×D and D×B.
    """
    return operations(jax.make_jaxpr(function)(*args).jaxpr) / unit


TRANSCENDENTAL = {"exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "sin", "cos", "pow"}


def transcendentals(jaxpr: Any) -> float:
    """How many values of such functions a program without loops computes."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name in TRANSCENDENTAL:
            total += math.prod(equation.outvars[0].aval.shape)
        total += sum(map(transcendentals, jaxprs_in_params(equation.params)))
    return total


def operations(jaxpr: Any) -> float:
    """2 · multiply-adds of every product and convolution in a program and those inside it."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            length = math.prod(left[axis] for axis in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * length
            continue
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            into = kernel[params["dimension_numbers"].rhs_spec[0]]  # features that come out
            out = math.prod(equation.outvars[0].aval.shape)
            total += 2.0 * out * math.prod(kernel) / into
            continue
        inner = [operations(program) for program in jaxprs_in_params(params)]
        times = 1
        if name == "scan":
            times = params["length"]
        elif name == "shard_map":
            axes = params.get("newly_manual_axes", params.get("manual_axes"))  # by jax's version
            times = math.prod(params["mesh"].shape[axis] for axis in axes)
        elif name == "pallas_call":
            times = math.prod(params["grid_mapping"].grid)
        total += times * (max(inner, default=0.0) if name == "cond" else sum(inner))
    return total
