"""Reverse mode of the engine, once: `custom_vjp` outside, every shard_map inside its two halves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from pallas_kernels.pair_reduce import xla
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
        return xla.summed(problem, trees, coefficients, wanted)

    def backward(
        trees: Any, keys: Any, gradients: Any, cotangents: Any, wanted: Wanted
    ) -> list[Leaves]:
        cotangent = cotangents[0]
        if isinstance(cotangent, SymbolicZero):
            return [[], [], []]
        layout = problem.layout
        if layout.inside:  # each device's loss has a share in the total
            cotangent = jax.lax.psum(cotangent, layout.axes)
        return [[cotangent * d for d in side] for side in gradients]

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
    trees = xla.varying(problem.layout, trees, trees)
    structures: list[Any] = [jax.tree.structure(tree) for tree in trees]
    wanted: list[Wanted] = []  # static, known from the first half on

    def whole(sides: Sequence[Leaves]) -> tuple[Any, ...]:
        return tuple(structure.unflatten(side) for structure, side in zip(structures, sides))

    @jax.custom_vjp
    def run(sides: list[Leaves], keys: dict[str, jax.Array]) -> Any:
        return value(whole(sides), keys)

    def first_half(sides: Any, keys: Any) -> Any:
        flags = [[leaf.perturbed and _is_float(leaf.value) for leaf in side] for side in sides]
        values = [[_first_order(leaf.value) for leaf in side] for side in sides]
        wanted[:] = [Wanted(*flags)]
        keys = jax.tree.map(lambda primal: primal.value, keys)
        result, kept = forward(whole(values), keys, wanted[0])
        return result, (values, keys, kept)

    def second_half(saved: Any, cotangents: Any) -> Any:
        values, keys, kept = jax.tree.map(_first_order, saved)
        cotangents = jax.tree.map(
            lambda ct: ct if _is_zero(ct) else _first_order(ct), cotangents, is_leaf=_is_zero
        )
        gradients = backward(whole(values), keys, kept, cotangents, wanted[0])
        sides: list[list[Any]] = []
        for side, flags, given in zip(values, wanted[0], gradients):
            new = iter(given)
            sides.append(
                [next(new).astype(x.dtype) if w and given else None for x, w in zip(side, flags)]
            )
        return sides, None

    run.defvjp(first_half, second_half, symbolic_zeros=True)
    return run([jax.tree.leaves(tree) for tree in trees], keys)


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
