"""What a tile makes of one side alone, made once in front of the sweep.

    tile:  unit(z_r) @ unit(z_c).T      becomes      z_r, z_c = unit(z_r), unit(z_c)
                                                     tile:  z_r @ z_c.T

A tile may bring its vectors to length one and leave no copy of the sides in memory. But a kernel
that holds long vectors by parts makes a part anew wherever it needs one, and the norm of the whole
vector with it: that costs two products more. It pays there to keep the copies.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun, jaxprs_in_params

from pallas_kernels.pair_reduce.in_kernel import ELEMENTWISE, INSIDE, NOTHING
from pallas_kernels.pair_reduce.statistics import at_least_float32, leaf
from pallas_kernels.pair_reduce.sweep import length
from pallas_kernels.pair_reduce.types import At, Reduce, SoftmaxMean, Tile

_MOVES = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "transpose", "rev"}
# An operation that is not among these joins numbers of a vector.
_BY_ENTRY = {*ELEMENTWISE, *NOTHING, *INSIDE, *_MOVES}

Result = tuple[int, int]  # which equation of a program, and which of its results


class Prepared(NamedTuple):
    """A problem that has the same answer. A side is {"kept": its leaves, but None for those that
    the tile reads no more; "made": arrays made of them}.
    """

    tile: Tile
    rows: Any
    cols: Any
    reductions: Mapping[str, Reduce]


def in_front(
    tile: Tile, rows: Any, cols: Any, params: Any, reductions: Mapping[str, Reduce]
) -> Prepared:
    """Take out of a tile what it joins along vectors of one side, and what follows from that alone.

    What is made in front has the rows (columns) first and no axis of the other side. Gradients flow
    through it as through any jax program.
    """
    sides = rows, cols
    taken = {size for x in jax.tree.leaves((sides, params)) for size in x.shape}
    free = (size for size in range(7919, 2, -2) if size not in taken)
    sizes = next(free), next(free)  # so an axis of rows or of columns is known by its size
    program = _traced(tile, [_shapes(*pair) for pair in zip(sides, sizes)], params)
    results = [_joined(program, 0, *sizes), _joined(program, 1, *reversed(sizes))]
    if not any(results):
        return Prepared(tile, rows, cols, reductions)

    read = _needed(program, program.closed.jaxpr.outvars, _variables(program, results))[1]
    kept = [{i for i, var in enumerate(side) if var in read} for side in program.sides]
    renamed = dict(reductions)
    for name, (op, term, per) in reductions.items():
        if isinstance(op, SoftmaxMean) and op.value not in program.terms:
            side = int(per == "row")
            structure: Any = jax.tree.structure(sides[side])
            kept[side].add(leaf(structure.unflatten(range(structure.num_leaves)), op.value))
            renamed[name] = Reduce(dataclasses.replace(op, value=f"kept.{op.value}"), term, per)

    def prepared(side: int) -> dict[str, Any]:
        tree = sides[side]
        leaves = jax.tree.leaves(tree)
        structure: Any = jax.tree.structure(tree)
        lengths = [length(tree) if i == side else size for i, size in enumerate(sizes)]
        whole = _traced(tile, [_shapes(*pair) for pair in zip(sides, lengths)], params)
        make = _part(whole, whole.sides[side], _variables(whole, [results[side]]))
        some = [x if i in kept[side] else None for i, x in enumerate(leaves)]
        return {
            "kept": structure.unflatten(some),
            "made": make(*map(at_least_float32, leaves)),
        }

    shapes = [_shapes(tree, length(tree)) for tree in sides]

    def rest(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
        block = _traced(tile, [_shapes(*pair) for pair in zip(shapes, map(len, at))], params)
        inputs = [
            *(
                var
                for side, some in zip(block.sides, kept)
                for i, var in enumerate(side)
                if i in some
            ),
            *_variables(block, results),
            *block.others,
        ]
        leaves = jax.tree.leaves((row["kept"], col["kept"], row["made"], col["made"], params))
        made = _part(block, inputs, block.closed.jaxpr.outvars)
        return dict(zip(block.terms, made(*map(at_least_float32, leaves), *at)))

    return Prepared(rest, prepared(0), prepared(1), renamed)


class _Program(NamedTuple):
    """A tile, traced.

    Attributes:
        sides: the variables of the leaves of rows, and of columns.
        others: those of params and of the positions.
        terms: the names of its results.
    """

    closed: ClosedJaxpr
    sides: tuple[list[Any], list[Any]]
    others: list[Any]
    terms: list[str]


def _traced(tile: Tile, sides: Sequence[Any], params: Any) -> _Program:
    positions: list[Any] = [jax.ShapeDtypeStruct((length(side),), jnp.int32) for side in sides]
    params = jax.eval_shape(lambda tree: jax.tree.map(at_least_float32, tree), params)
    closed, made = jax.make_jaxpr(tile, return_shape=True)(*sides, params, At(*positions))
    variables = closed.jaxpr.invars
    rows, cols = (len(jax.tree.leaves(side)) for side in sides)
    read = variables[:rows], variables[rows : rows + cols]
    return _Program(closed, read, variables[rows + cols :], sorted(made))


def _joined(program: _Program, side: int, own: int, other: int) -> list[Result]:
    """What is made of one side alone, has its axis of size `own` first, joins numbers along
    vectors, and is read by whatever is not such: where it is made.
    """
    jaxpr = program.closed.jaxpr
    joins = dict.fromkeys(program.sides[side], False)  # of what is made of this side alone
    made: dict[Any, Result] = {}
    crossing: list[Any] = list(jaxpr.outvars)
    for i, equation in enumerate(jaxpr.eqns):
        read = [var for var in equation.invars if not isinstance(var, Literal)]
        shapes = [getattr(var.aval, "shape", ()) for var in equation.outvars]
        if (
            any(var in joins for var in read)
            and all(var in joins or var in jaxpr.constvars for var in read)
            and all(shape[:1] == (own,) and other not in shape for shape in shapes)
        ):
            joining = _joins(equation) or any(joins.get(var) for var in read)
            for k, var in enumerate(equation.outvars):
                joins[var], made[var] = joining, (i, k)
        else:
            crossing += read
    return sorted({made[var] for var in crossing if var in made and joins[var]})


def _joins(equation: Any) -> bool:
    """Whether an operation, or one of a program inside it, joins numbers of a vector."""
    inside = (e for jaxpr in jaxprs_in_params(equation.params) for e in jaxpr.eqns)
    return equation.primitive.name not in _BY_ENTRY or any(map(_joins, inside))


def _variables(program: _Program, results: Sequence[Sequence[Result]]) -> list[Any]:
    equations = program.closed.jaxpr.eqns
    return [equations[i].outvars[k] for some in results for i, k in some]


def _needed(
    program: _Program, wanted: Sequence[Any], given: Collection[Any]
) -> tuple[list[Any], set[Any]]:
    """The equations that make what is wanted of what is given, and all variables that they read."""
    needed = {var for var in wanted if not isinstance(var, Literal)}.difference(given)
    equations = []
    for equation in reversed(program.closed.jaxpr.eqns):
        if needed.intersection(equation.outvars):
            equations.append(equation)
            needed |= {v for v in equation.invars if not isinstance(v, Literal)}.difference(given)
    return equations[::-1], needed


def _part(
    program: _Program, inputs: Sequence[Any], outputs: Sequence[Any]
) -> Callable[..., list[jax.Array]]:
    """The part of a program that makes these variables of those."""
    equations, _ = _needed(program, outputs, inputs)
    jaxpr = program.closed.jaxpr.replace(invars=list(inputs), outvars=list(outputs), eqns=equations)
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, program.closed.consts))


def _shapes(tree: Any, size: int) -> Any:
    """As what a tile sees a side of so many rows (columns)."""

    def one(x: Any) -> jax.ShapeDtypeStruct:
        seen = jax.eval_shape(at_least_float32, x)
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), seen.dtype)

    return jax.tree.map(one, tree)
