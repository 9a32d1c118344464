"""The engine in plain XLA: three kinds of sweep over the grid of pairs.

    forward       evaluates each tile and merges its statistics                        1 M
    backward      evaluates each tile again, differentiates it (`jax.vjp`), adds up    1 + 2 M
    summed        both at once, where the cotangents are known beforehand              3 M

M is one n·m·D product; a side that nobody differentiates costs nothing in the backward pass.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from pallas_kernels.pair_reduce.layout import Layout, shared_cotangent, varying
from pallas_kernels.pair_reduce.mesh import sweep_mesh
from pallas_kernels.pair_reduce.statistics import (
    Pulled,
    Seen,
    Statistic,
    at_least_float32,
    leaf,
    statistic,
)
from pallas_kernels.pair_reduce.sweep import State, Sweep, cut, length, sweep
from pallas_kernels.pair_reduce.types import At, Reduce, SoftmaxMean, Tile

Trees = tuple[Any, Any, Any]  # of rows, columns and params


class Problem(NamedTuple):
    """What is asked of the engine. Static but for the keys, which are passed beside it."""

    tile: Tile
    reductions: Mapping[str, Reduce]
    layout: Layout
    blocks: tuple[int, int]  # rows and columns of a tile
    groups: int | None
    precision: Any  # for jax.default_matmul_precision; None: as it is
    impl: str = "xla"

    def evaluate(self, row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
        """The terms of a tile that some reduction needs, float32 at least."""
        precise = (
            contextlib.nullcontext()
            if self.precision is None
            else jax.default_matmul_precision(self.precision)
        )
        with precise:
            terms = self.tile(row, col, params, at)
        needed = {name for r in self.reductions.values() for name in (r.term, _value(r))}
        return {name: at_least_float32(x) for name, x in terms.items() if name in needed}

    def statistics(self, keys: Mapping[str, jax.Array]) -> dict[str, Statistic]:
        return {name: statistic(r, keys.get(name)) for name, r in self.reductions.items()}

    @property
    def sweep(self) -> Sweep:
        """How one device visits all pairs."""
        if self.impl == "xla":
            return sweep
        module = importlib.import_module(f"pallas_kernels.pair_reduce.{self.impl}")
        return module.sweep

    @property
    def specs(self) -> dict[str, PartitionSpec]:
        """How each statistic's array is split."""
        split, whole = self.layout.split, PartitionSpec()
        return {name: whole if r.per == "all" else split for name, r in self.reductions.items()}


def _value(reduce: Reduce) -> str | None:
    """What a SoftmaxMean averages."""
    return reduce.op.value if isinstance(reduce.op, SoftmaxMean) else None


class Wanted(NamedTuple):
    """Which leaves are differentiated: a flag for each, in the order of jax.tree.leaves."""

    rows: Sequence[bool]
    cols: Sequence[bool]
    params: Sequence[bool]


def forward(
    problem: Problem, trees: Trees, keys: Mapping[str, jax.Array]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of all statistics, and what their gradients need of them."""
    specs = problem.specs
    return problem.layout.run(
        lambda *args: _forward(problem, *args),
        in_specs=(problem.layout.split, problem.layout.split, PartitionSpec(), PartitionSpec()),
        out_specs=(specs, specs),
    )(*trees, keys)


def _forward(problem: Problem, rows: Any, cols: Any, params: Any, keys: Any) -> Any:
    statistics = problem.statistics(keys)

    def visit(row: Any, col: Any, state: State, at: At, valid: Any) -> State:
        seen = _seen(problem, row, col, params, at, valid)
        after: dict[str, dict[str, Any]] = {"row": {}, "col": {}, "all": {}}
        for name, of in statistics.items():
            before = getattr(state, of.per)[name]
            after[of.per][name] = of.merge(before, of.of_tile(seen))
        return State(**after)

    def merge(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        return {name: statistics[name].merge(a[name], b[name]) for name in a}

    state = sweep_mesh(
        visit,
        rows,
        cols,
        _nothing_seen(problem, statistics, rows, cols, params),
        layout=problem.layout,
        blocks=problem.blocks,
        groups=problem.groups,
        sweep=problem.sweep,
        block_first=problem.impl != "xla",
        merge=merge,
    )
    states = {name: getattr(state, of.per)[name] for name, of in statistics.items()}
    results = {name: statistics[name].result(states[name]) for name in statistics}
    residuals = {name: statistics[name].residual(states[name]) for name in statistics}
    return results, residuals


def backward(
    problem: Problem,
    trees: Trees,
    keys: Mapping[str, jax.Array],
    residuals: Mapping[str, Any],
    cotangents: Mapping[str, Any],
    wanted: Wanted,
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Gradients of the wanted leaves, float32 at least; cotangents of some statistics suffice."""
    some = {name: r for name, r in problem.reductions.items() if name in cotangents}
    problem = problem._replace(reductions=some)
    split, specs = problem.layout.split, problem.specs
    return problem.layout.run(
        lambda *args: _backward(problem, wanted, *args),
        in_specs=((split, split, PartitionSpec()), PartitionSpec(), specs, specs),
        out_specs=(split, split, PartitionSpec()),
    )(trees, keys, {name: residuals[name] for name in some}, cotangents)


def _backward(
    problem: Problem, wanted: Wanted, trees: Trees, keys: Any, residuals: Any, cotangents: Any
) -> Any:
    statistics = problem.statistics(keys)
    layout = problem.layout
    trees = varying(layout, trees, trees)
    notes: dict[str, dict[str, Any]] = {"row": {}, "col": {}, "all": {}}
    for name, of in statistics.items():
        cotangent = cotangents[name]
        if of.per == "all":
            cotangent = shared_cotangent(layout, trees, cotangent)
        notes[of.per][name] = (residuals[name], cotangent)

    def visit(row: Any, col: Any, state: State, at: At, valid: Any) -> State:
        (row, row_notes), (col, col_notes) = row, col
        noted = {**row_notes, **col_notes, **notes["all"]}

        def cotangents_of(seen: Seen) -> list[tuple[Statistic, Pulled]]:
            return [(of, of.pull(seen, *noted[name])) for name, of in statistics.items()]

        _, gradients = _pulled_back(problem, (row, col, trees[2]), at, valid, wanted, cotangents_of)
        return jax.tree.map(jnp.add, state, gradients)

    state = sweep_mesh(
        visit,
        (trees[0], notes["row"]),
        (trees[1], notes["col"]),
        no_gradients(layout, trees, wanted),
        layout=layout,
        blocks=problem.blocks,
        groups=problem.groups,
        sweep=problem.sweep,
        block_first=problem.impl != "xla",
        join=not layout.inside,
    )
    return state.row, state.col, state.all


def summed(
    problem: Problem,
    trees: Trees,
    coefficients: Mapping[str, float],
    wanted: Wanted,
) -> tuple[tuple[jax.Array, jax.Array], tuple[list[jax.Array], list[jax.Array], list[jax.Array]]]:
    """Σ coefficient · term over all pairs, the same per row, and the gradients of the total."""
    split, whole = problem.layout.split, PartitionSpec()
    return problem.layout.run(
        lambda *trees: _summed(problem, trees, coefficients, wanted),
        in_specs=(split, split, whole),
        out_specs=((whole, split), (split, split, whole)),
    )(*trees)


def _summed(
    problem: Problem, trees: Trees, coefficients: Mapping[str, float], wanted: Wanted
) -> Any:
    layout = problem.layout
    trees = varying(layout, trees, trees)

    def visit(row: Any, col: Any, state: State, at: At, valid: Any) -> State:
        def cotangents_of(seen: Seen) -> list[tuple[Statistic, Pulled]]:
            return [
                (statistic(Reduce("sum", name, "all")), Pulled({name: jnp.full_like(term, by)}))
                for name, by in coefficients.items()
                for term in [seen.terms[name]]
            ]

        seen, gradients = _pulled_back(
            problem, (row, col, trees[2]), at, valid, wanted, cotangents_of
        )
        value = sum(by * seen.term(name, 0.0) for name, by in coefficients.items())
        by_row = jnp.sum(value, axis=1)
        step = State((by_row, gradients.row), gradients.col, (jnp.sum(by_row), gradients.all))
        return jax.tree.map(jnp.add, state, step)

    nothing = no_gradients(layout, trees, wanted)
    dtype = _block_of_terms(problem, *trees)[next(iter(coefficients))].dtype
    empty = varying(layout, trees, (jnp.zeros(length(trees[0]), dtype), jnp.zeros((), dtype)))
    state = sweep_mesh(
        visit,
        trees[0],
        trees[1],
        State((empty[0], nothing.row), nothing.col, (empty[1], nothing.all)),
        layout=layout,
        blocks=problem.blocks,
        groups=problem.groups,
        sweep=problem.sweep,
        block_first=problem.impl != "xla",
        join=False,
    )
    (by_row, d_rows), d_cols, (total, d_params) = state
    if layout.axes:
        total = jax.lax.psum(total, layout.axes)
        if not layout.inside:
            d_params = jax.tree.map(lambda x: jax.lax.psum(x, layout.axes), d_params)
    return (total, by_row), (d_rows, d_cols, d_params)


def _pulled_back(
    problem: Problem,
    trees: Trees,
    at: At,
    valid: jax.Array | None,
    wanted: Wanted,
    cotangents_of: Callable[[Seen], list[tuple[Statistic, Pulled]]],
) -> tuple[Seen, State]:
    """A tile, and the gradients of its blocks' wanted leaves (lists) under its cotangents."""
    row, col, params = (jax.tree.map(at_least_float32, tree) for tree in trees)
    sides = [(jax.tree.leaves(t), w) for t, w in zip((row, col, params), wanted)]
    structures: list[Any] = [jax.tree.structure(t) for t in (row, col, params)]

    def terms_of(*some: list[jax.Array]) -> dict[str, jax.Array]:
        row, col, params = (
            tree.unflatten(_filled(leaves, flags, given))
            for tree, (leaves, flags), given in zip(structures, sides, some)
        )
        return problem.evaluate(row, col, params, at)

    chosen = [[x for x, w in zip(leaves, flags) if w] for leaves, flags in sides]
    terms, vjp = jax.vjp(terms_of, *chosen)
    seen = Seen(terms, row, col, at, valid)
    pulls = cotangents_of(seen)
    d_terms = {name: jnp.zeros_like(term) for name, term in terms.items()}
    for _, pulled in pulls:
        for name, d in pulled.terms.items():
            d_terms[name] = d_terms[name] + d.astype(d_terms[name].dtype)
    if valid is not None:
        d_terms = {name: jnp.where(valid, d, 0.0) for name, d in d_terms.items()}
    d_sides = list(vjp(d_terms))
    for of, pulled in pulls:
        if pulled.leaf is not None:
            side, tree = (1, col) if of.per == "row" else (0, row)
            _add_to_leaf(d_sides[side], tree, wanted[side], of, pulled.leaf)
    return seen, State(*d_sides)


def _add_to_leaf(
    d_side: list[jax.Array], tree: Any, flags: Sequence[bool], of: Any, d_leaf: jax.Array
) -> None:
    """Add to the gradient of the leaf that a SoftmaxMean averages, if it is wanted."""
    structure: Any = jax.tree.structure(tree)
    place = leaf(structure.unflatten(range(len(flags))), of.value)
    if flags[place]:
        i = sum(flags[:place])
        d_side[i] = d_side[i] + d_leaf


def _filled(leaves: Sequence[Any], flags: Sequence[bool], given: Sequence[Any]) -> list[Any]:
    """`leaves` with those that are flagged taken from `given`, in order."""
    new = iter(given)
    return [next(new) if flag else leaf for leaf, flag in zip(leaves, flags)]


def _seen(problem: Problem, row: Any, col: Any, params: Any, at: At, valid: Any) -> Seen:
    row, col, params = (jax.tree.map(at_least_float32, tree) for tree in (row, col, params))
    return Seen(problem.evaluate(row, col, params, at), row, col, at, valid)


def _block(problem: Problem, rows: Any, cols: Any) -> tuple[Any, Any, At]:
    r, c = (min(b, length(t)) for b, t in zip(problem.blocks, (rows, cols)))
    at = At(jnp.arange(r, dtype=jnp.int32), jnp.arange(c, dtype=jnp.int32))
    return cut(rows, 0, r), cut(cols, 0, c), at


def _block_of_terms(problem: Problem, rows: Any, cols: Any, params: Any) -> Any:
    """Shapes and dtypes of one tile's terms."""

    def terms(rows: Any, cols: Any, params: Any) -> Any:
        row, col, at = _block(problem, rows, cols)
        return _seen(problem, row, col, params, at, None).terms

    return jax.eval_shape(terms, rows, cols, params)


def _nothing_seen(
    problem: Problem, statistics: Mapping[str, Statistic], rows: Any, cols: Any, params: Any
) -> State:
    """The state of every statistic before any tile, for all rows and columns."""

    def one_tile(rows: Any, cols: Any, params: Any) -> Any:
        row, col, at = _block(problem, rows, cols)
        seen = _seen(problem, row, col, params, at, None)
        return {name: of.of_tile(seen) for name, of in statistics.items()}

    empty: dict[str, dict[str, Any]] = {"row": {}, "col": {}, "all": {}}
    sizes = {"row": length(rows), "col": length(cols)}
    for name, like in jax.eval_shape(one_tile, rows, cols, params).items():
        of = statistics[name]

        def filled(fill: Any, tree: Any, per: str = of.per) -> Any:
            def one(x: Any) -> jax.Array:
                return jnp.full(
                    x.shape if per == "all" else (sizes[per], *x.shape[1:]), fill, x.dtype
                )

            return jax.tree.map(one, tree)

        empty[of.per][name] = jax.tree.map(filled, of.fill, like)
    return varying(problem.layout, (rows, cols, params), State(**empty))


def no_gradients(layout: Layout, trees: Trees, wanted: Wanted) -> State:
    """Zeros for every wanted leaf, float32 at least."""

    def zeros(tree: Any, flags: Sequence[bool]) -> list[jax.Array]:
        leaves = [x for x, w in zip(jax.tree.leaves(tree), flags) if w]
        return [jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)) for x in leaves]

    return varying(layout, trees, State(*(zeros(t, w) for t, w in zip(trees, wanted))))
