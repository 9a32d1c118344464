"""The program of a tile, evaluated inside a kernel: what there is, and how each of it is done.

A tile is ordinary `jax.numpy`. Traced, together with its derivative and the statistics, it is a
program of a few dozen primitive operations on arrays of any rank. Here each of them is done on
`pieces.Value`s. An operation is added by a line of `ELEMENTWISE`, or by a function of RULES.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from pallas_kernels.pair_reduce.pieces import Pieces, Value

Rule = Callable[..., Value | list[Value]]  # (pieces, values, parameters of the operation)

_BY_ENTRY = """
add add_any sub mul div rem neg sign abs floor ceil round max min clamp pow integer_pow square sqrt
rsqrt exp exp2 log log1p expm1 tanh logistic sin cos tan erf eq ne lt le gt ge and or xor not
is_finite select_n convert_element_type
"""
# Done by the primitive itself on every piece.
ELEMENTWISE = frozenset(_BY_ENTRY.split())
# What devices lack, as what they have. expm1 keeps the digits of small numbers; jax makes the
# derivative of tanh of one_minus_square, from 0.12 on.
INSTEAD: dict[str, Callable[..., jax.Array]] = {
    "expm1": lambda x: jnp.tanh(0.5 * x) * (jnp.exp(x) + 1),
    "one_minus_square": lambda x: (1 - x) * (1 + x),
}
INSTEAD_FLAGS: dict[str, Callable[..., jax.Array]] = {
    "max": jnp.logical_or,
    "min": jnp.logical_and,
    "select_n": lambda which, no, yes: (which & yes) | (~which & no),
}
# What changes no number.
NOTHING = frozenset({"copy", "stop_gradient", "optimization_barrier", "reshard", "pvary", "pcast"})
# Programs inside the program, done in place: the parameter that holds them.
INSIDE = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def evaluate(pieces: Pieces, program: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    """The results of `program` for these inputs.

    Raises:
        NotImplementedError: it uses an operation that no kernel does, which is named.
    """
    if any(np.ndim(const) for const in program.consts):
        raise NotImplementedError(
            f"{pieces.target.name}: an operation of the tile holds an array of constants; pass it "
            "through params"
        )
    consts = [pieces.constant(const) for const in program.consts]
    return _evaluate(pieces, program.jaxpr, [*consts, *inputs])


def _evaluate(pieces: Pieces, jaxpr: Jaxpr, inputs: Sequence[Value]) -> list[Value]:
    known: dict[Any, Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))

    def read(var: Any) -> Value:
        if isinstance(var, Literal):
            return pieces.constant(np.asarray(var.val, getattr(var.aval, "dtype", None)))
        return known[var]

    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        values = [read(var) for var in equation.invars]
        if name in NOTHING:
            made = values
        elif name in ELEMENTWISE or name in INSTEAD:
            made = _elementwise(pieces, equation, values)
        elif name in INSIDE:
            inner = params[INSIDE[name]]
            if isinstance(inner, ClosedJaxpr):
                made = evaluate(pieces, inner, values)
            else:
                made = _evaluate(pieces, inner, values)
        elif name in RULES:
            found = RULES[name](pieces, *values, **params)
            made = found if isinstance(found, list) else [found]
        else:
            raise NotImplementedError(
                f"{pieces.target.name}: the tile or a reduction uses {name}, which no kernel does; "
                'impl="xla" does'
            )
        known.update(zip(equation.outvars, made))
    return [read(var) for var in jaxpr.outvars]


def operations() -> list[str]:
    """The names of all primitive operations that a kernel does."""
    return sorted({*NOTHING, *ELEMENTWISE, *INSIDE, *RULES})


def _elementwise(pieces: Pieces, equation: Any, values: Sequence[Value]) -> list[Value]:
    name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval
    by_numbers = INSTEAD_FLAGS.get(name) if out.dtype == jnp.bool_ else None

    def make(*xs: jax.Array) -> jax.Array:
        shape = np.broadcast_shapes(*(np.shape(x) for x in xs))
        xs = tuple(jnp.broadcast_to(x, shape) for x in xs)
        if by_numbers or name in INSTEAD:
            return (by_numbers or INSTEAD[name])(*xs)
        done = pieces.target.instead.get(name, equation.primitive.bind)
        return done(*xs, **params)

    if name == "convert_element_type":
        make = partial(_converted, dtype=out.dtype)
    return [pieces.elementwise(make, values, out.dtype)]


def _converted(x: jax.Array, dtype: Any) -> jax.Array:
    return jnp.asarray(x).astype(dtype)


def _broadcast_in_dim(
    pieces: Pieces, value: Value, *, shape: Any, broadcast_dimensions: Any, **_: Any
) -> Value:
    return pieces.broadcast(value, tuple(shape), broadcast_dimensions)


def _reshape(pieces: Pieces, value: Value, *, new_sizes: Any, **_: Any) -> Value:
    return pieces.reshape(value, tuple(new_sizes))


def _squeeze(pieces: Pieces, value: Value, *, dimensions: Any) -> Value:
    shape = [size for i, size in enumerate(value.shape) if i not in dimensions]
    return pieces.reshape(value, tuple(shape))


def _transpose(pieces: Pieces, value: Value, *, permutation: Any) -> Value:
    return pieces.transpose(value, permutation)


def _reduce_sum(pieces: Pieces, value: Value, *, axes: Any, **_: Any) -> Value:
    return pieces.sum(value, axes)


def _same(x: jax.Array, count: int) -> jax.Array:
    return x


def _reduce(name: str, pieces: Pieces, value: Value, *, axes: Any, **_: Any) -> Value:
    if value.dtype == jnp.bool_:
        return _reduce_flags(name, pieces, value, axes=axes)
    within, larger = {"max": (jnp.max, jnp.maximum), "min": (jnp.min, jnp.minimum)}[name]
    between: Callable[..., jax.Array] = pieces.target.instead.get(name, larger)
    if jnp.issubdtype(value.dtype, jnp.floating):
        least, most = -jnp.inf, jnp.inf
    else:
        least, most = jnp.iinfo(value.dtype).min, jnp.iinfo(value.dtype).max
    fill = least if name == "max" else most
    return pieces.reduce(
        value, axes, lambda x, place: within(x, axis=place, keepdims=True), between, fill, _same
    )


def _reduce_flags(name: str, pieces: Pieces, value: Value, *, axes: Any, **_: Any) -> Value:
    """Flags as numbers: devices reduce no flags."""
    float32 = jnp.dtype("float32")
    numbers = pieces.elementwise(lambda x: x.astype(float32), (value,), float32)
    found = _reduce(name, pieces, numbers, axes=axes)
    return pieces.elementwise(lambda x: x > 0.5, (found,), jnp.dtype(bool))


def _dot_general(
    pieces: Pieces,
    left: Value,
    right: Value,
    *,
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Value:
    dtype = preferred_element_type or jnp.promote_types(left.dtype, right.dtype)
    return pieces.dot(left, right, dimension_numbers, precision, jnp.dtype(dtype))


def _slice(
    pieces: Pieces, value: Value, *, start_indices: Any, limit_indices: Any, strides: Any
) -> Value:
    return pieces.slice(value, start_indices, limit_indices, strides)


def _split(pieces: Pieces, value: Value, *, sizes: Any, axis: int) -> list[Value]:
    return pieces.split(value, sizes, axis)


def _concatenate(pieces: Pieces, *values: Value, dimension: int) -> Value:
    return pieces.concatenate(values, dimension)


def _stack(pieces: Pieces, *values: Value, axis: int) -> Value:
    return pieces.stack(values, axis)


def _unstack(pieces: Pieces, value: Value, *, axis: int) -> list[Value]:
    return pieces.unstack(value, axis)


def _pad(pieces: Pieces, value: Value, fill: Value, *, padding_config: Any) -> Value:
    return pieces.pad(value, fill, padding_config)


def _iota(pieces: Pieces, *, dtype: Any, shape: Any, dimension: int, **_: Any) -> Value:
    return pieces.iota(dtype, tuple(shape), dimension)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "reduce_sum": _reduce_sum,
    "reduce_max": partial(_reduce, "max"),
    "reduce_min": partial(_reduce, "min"),
    "reduce_and": partial(_reduce_flags, "min"),
    "reduce_or": partial(_reduce_flags, "max"),
    "dot_general": _dot_general,
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "iota": _iota,
}
