"""What can be wrong with a call, said before anything runs."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from pallas_kernels.pair_reduce.statistics import leaf
from pallas_kernels.pair_reduce.sweep import length
from pallas_kernels.pair_reduce.types import At, Per, Reduce, Sample, SoftmaxMean, Tile, TopK

NAMED = ("sum", "logsumexp", "max")


def leading_size(tree: Any, argument: str) -> int:
    """The size of the leading axis that all leaves share.

    Raises:
        ValueError: there is no leaf, a scalar among them, or sizes differ.
    """
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{argument}: has no array in it")
    sizes = {}
    for path, x in leaves:
        where = f"{argument}{jax.tree_util.keystr(path)}"
        if not jnp.ndim(x):
            raise ValueError(f"{where}: a scalar; pass it in params")
        sizes[where] = jnp.shape(x)[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{argument}: leading sizes differ: {sizes}")
    return next(iter(sizes.values()))


def ops(reductions: Mapping[str, Reduce]) -> None:
    """Every op and per must be known.

    Raises:
        ValueError: it is not, or a k is less than 1.
    """
    for name, (op, _, per) in reductions.items():
        where = f"reductions[{name!r}]"
        if isinstance(op, str) and op not in NAMED:
            raise ValueError(f"{where}: unknown op {op!r}; {NAMED}, SoftmaxMean, TopK, Sample")
        if not isinstance(op, str | SoftmaxMean | TopK | Sample):
            raise ValueError(f"{where}: unknown op {op!r}; {NAMED}, SoftmaxMean, TopK, Sample")
        if per not in get_args(Per):
            raise ValueError(f"{where}: unknown per {per!r}; {get_args(Per)}")
        if isinstance(op, TopK | Sample) and op.k < 1:
            raise ValueError(f"{where}: k={op.k} should be 1 or more")


def blocks(given: Any) -> None:
    """Blocks are two sizes, or nothing.

    Raises:
        ValueError: they are not.
    """
    if given is None:
        return
    if not isinstance(given, Sequence) or len(given) != 2:
        raise ValueError(f"blocks: {given!r} should be two sizes, of rows and of columns")
    if not all(isinstance(size, int) and size > 0 for size in given):
        raise ValueError(f"blocks: {given!r} should be two whole numbers of 1 or more")


def terms(
    tile: Tile, rows: Any, cols: Any, params: Any, reductions: Mapping[str, Reduce]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The tile's terms over the whole grid, as shapes; nothing is computed.

    Raises:
        ValueError: the tile captures a traced array, or makes no term that a reduction names, or
            one of another shape; or there is no leaf to carry or average.
        TypeError: a term is not a float.
    """
    n, m = (length(tree) for tree in (rows, cols))
    at = jax.eval_shape(lambda: At(jnp.arange(n, dtype=jnp.int32), jnp.arange(m, dtype=jnp.int32)))
    jaxpr, made = jax.make_jaxpr(tile, return_shape=True)(rows, cols, params, at)
    for const in jaxpr.consts:
        if isinstance(const, jax.core.Tracer):
            raise ValueError(
                f"tile: captures {_name(tile, const)}a traced {const.dtype}{list(const.shape)};"
                " pass it through params, rows or cols"
            )
    if not isinstance(made, Mapping):
        raise TypeError(f"tile: returns a {type(made).__name__}, not a dict of terms by name")
    for name, (op, term, per) in reductions.items():
        where = f"reductions[{name!r}]"
        _term(made, term, where, (n, m))
        others = {"row": (cols, "cols"), "col": (rows, "rows"), "all": (cols, "cols")}[per]
        if isinstance(op, SoftmaxMean):
            if op.value in made:
                _term(made, op.value, where, (n, m))
            elif per == "all":
                raise ValueError(f"{where}: over all pairs the value must be a term of the tile")
            else:
                value = _leaf(*others, op.value, where)
                if not jnp.issubdtype(value.dtype, jnp.floating):
                    raise TypeError(f"{where}: {op.value!r} is {value.dtype}, not a float")
        for carried in getattr(op, "carry", ()):
            _leaf(*others, carried, where)
    return dict(made)


def _term(made: Mapping[str, Any], name: str, where: str, shape: tuple[int, int]) -> None:
    if name not in made:
        raise ValueError(f"{where}: the tile makes no {name!r}, only {sorted(made)}")
    term = made[name]
    if term.shape != shape:
        raise ValueError(f"tile: {name!r} has shape {term.shape}, not (rows, cols) {shape}")
    if not jnp.issubdtype(term.dtype, jnp.floating):
        raise TypeError(f"tile: {name!r} is {term.dtype}, not a float")


def _leaf(tree: Any, argument: str, name: str, where: str) -> Any:
    try:
        found = leaf(tree, name)
    except (KeyError, TypeError, IndexError):
        found = None
    if found is None or not hasattr(found, "shape"):
        raise ValueError(f"{where}: there is no leaf {name!r} in {argument}")
    return found


def _name(tile: Tile, captured: jax.Array) -> str:
    """The name, with a comma, under which the tile's closure or defaults hold it; "" if hidden."""
    tile = inspect.unwrap(tile)
    held = {name: p.default for name, p in inspect.signature(tile).parameters.items()}
    if inspect.isfunction(tile):
        held |= inspect.getclosurevars(tile).nonlocals
    for name, value in held.items():
        if any(leaf is captured for leaf in jax.tree.leaves(value)):
            return f"{name!r}, "
    return ""
