"""Reverse mode of the engine, once: `custom_vjp` outside, every shard_map inside its two halves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from pallas_kernels.pair_reduce import xla
from pallas_kernels.pair_reduce.layout import shared_cotangent, varying
from pallas_kernels.pair_reduce.xla import Problem, Wanted

Leaves = list[jax.Array]


def reduced(
    problem: Problem, rows: Any, cols: Any, params: Any, keys: Mapping[str, jax.Array]
) -> dict[str, Any]:
    """The results of all reductions, differentiable in the float leaves of the three trees."""

    def value(trees: Any, keys: Any) -> dict[str, Any]:
        return xla.forward(problem, trees, keys)[0]

    def forward(trees: Any, keys: Any, wanted: Wanted) -> tuple[dict[str, Any], Any]:
        return xla.forward(problem, trees, keys)

    def backward(
        trees: Any, keys: Any, residuals: Any, cotangents: Any, wanted: Wanted
    ) -> list[Leaves]:
        some = {
            name: cotangent
            for name, cotangent in cotangents.items()
            if not isinstance(jax.tree.leaves(cotangent, is_leaf=_is_zero)[0], SymbolicZero)
        }
        if not some:
            return [[], [], []]
        first = {  # of winners, the index has no cotangent
            name: (ct[0], None) if isinstance(ct, tuple) else ct for name, ct in some.items()
        }
        return list(xla.backward(problem, trees, keys, residuals, first, wanted))

    return _once(value, forward, backward, (rows, cols, params), dict(keys), problem)


def summed(
    problem: Problem, rows: Any, cols: Any, params: Any, coefficients: Mapping[str, float]
) -> tuple[jax.Array, jax.Array]:
    """Σ coefficient · term, and the same by row; the gradient of the former is made beside it."""

    def value(trees: Any, keys: Any) -> Any:
        sums = xla.forward(problem, trees, {})[0]
        total = sum(by * sums[name] for name, by in coefficients.items())
        return total, sum(by * sums[f"{name} by row"] for name, by in coefficients.items())

    def forward(trees: Any, keys: Any, wanted: Wanted) -> Any:
        result, gradients = xla.summed(problem, trees, coefficients, wanted)
        return result, [_everywhere(*side) for side in zip(gradients, wanted)]

    def backward(
        trees: Any, keys: Any, gradients: Any, cotangents: Any, wanted: Wanted
    ) -> list[Leaves]:
        cotangent = cotangents[0]
        if isinstance(cotangent, SymbolicZero):
            return [[], [], []]
        cotangent = shared_cotangent(problem.layout, trees, cotangent)
        return [
            [cotangent * d for d, flag in zip(*side) if flag] for side in zip(gradients, wanted)
        ]

    total, by_row = _once(value, forward, backward, (rows, cols, params), {}, problem)
    return total, jax.lax.stop_gradient(by_row)


def _once(
    value: Callable[..., Any],
    forward: Callable[..., Any],
    backward: Callable[..., list[Leaves]],
    trees: tuple[Any, Any, Any],
    keys: dict[str, jax.Array],
    problem: Problem,
) -> Any:
    """`value(trees, keys)` with the gradients that `backward` makes of what `forward` keeps.

    Args:
        forward: (trees, keys, wanted) -> what `value` gives, and what the gradients need.
        backward: (trees, keys, kept, cotangents, wanted) -> the gradients of the wanted leaves of
            each tree, or none at all where they are zero. Only a leaf that somebody differentiates
            is wanted: jax says which.
    """
    trees = varying(problem.layout, trees, trees)
    structures: list[Any] = [jax.tree.structure(tree) for tree in trees]

    def whole(sides: Sequence[Leaves]) -> tuple[Any, ...]:
        return tuple(structure.unflatten(side) for structure, side in zip(structures, sides))

    @jax.custom_vjp
    def run(sides: list[Leaves], keys: dict[str, jax.Array]) -> Any:
        return value(whole(sides), keys)

    def first_half(sides: Any, keys: Any) -> Any:
        wanted = Wanted(
            *([leaf.perturbed and _is_float(leaf.value) for leaf in side] for side in sides)
        )
        values = [[_first_order(leaf.value) for leaf in side] for side in sides]
        keys = jax.tree.map(lambda primal: primal.value, keys)
        result, kept = forward(whole(values), keys, wanted)
        return result, (values, keys, kept, _as_arrays(wanted))

    def second_half(saved: Any, cotangents: Any) -> Any:
        values, keys, kept, flags = jax.tree.map(_first_order, saved)
        wanted = _as_flags(flags)
        cotangents = jax.tree.map(
            lambda ct: ct if _is_zero(ct) else _first_order(ct), cotangents, is_leaf=_is_zero
        )
        gradients = backward(whole(values), keys, kept, cotangents, wanted)
        sides: list[list[Any]] = []
        for side, flags, given in zip(values, wanted, gradients):
            new = iter(given)
            sides.append(
                [next(new).astype(x.dtype) if w and given else None for x, w in zip(side, flags)]
            )
        return sides, None

    run.defvjp(first_half, second_half, symbolic_zeros=True)
    return run([jax.tree.leaves(tree) for tree in trees], keys)


def _as_arrays(wanted: Wanted) -> list[Leaves]:
    """The flags as the sizes of empty arrays, (1, 0) or (0, 0).

    All traces of the first half (one for each choice of arguments that a jitted caller
    differentiates) must keep the same structure, for jax remembers that of the last one only.
    """
    return [[jnp.zeros((int(flag), 0)) for flag in side] for side in wanted]


def _as_flags(arrays: list[Leaves]) -> Wanted:
    return Wanted(*([bool(len(x)) for x in side] for side in arrays))


def _everywhere(given: Leaves, flags: Sequence[bool]) -> Leaves:
    """An array for every leaf: an empty one where none is given."""
    new = iter(given)
    return [next(new) if flag else jnp.zeros(0) for flag in flags]


@jax.custom_jvp
def _first_order(x: jax.Array) -> jax.Array:
    """`x`, of which no further derivative can be taken."""
    return x


@_first_order.defjvp
def _no_second(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "pair_reduce: it can be differentiated once, in reverse mode; this is a second derivative, "
        "or one in forward mode"
    )


def _is_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def _is_float(x: jax.Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))
