"""A layer inside a tower: what it gives, and how a score of the tower hangs on that.

The layer is named by its path in the tower, as its parameters are ("encoder/blocks_0/norm_1"). Its
output is that of its call, found by intercepting the call; a layer that is called twice has none.
A score that is compiled by itself, before a layer is looked at, calls none.

What is asked of a layer is a grid: a place for each part of the input. The input's own places are
those axes of its values that no channels are: the rows and columns of a picture, the times of a
signal, the tokens of a text.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.input_scores import Score


def plain(tower: nn.Module) -> nn.Module:
    """The same tower with every layer to be seen: none computed again, none in a loop."""
    usual: dict[str, Any] = {"remat": "none", "scan": False}
    return tower.clone(**{name: value for name, value in usual.items() if hasattr(tower, name)})


def grids(score: Score, value: Any, axes: int) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of its output, in order of the calls: of those that give a grid.

    Args:
        value: (B, *places, ...).
        axes: how many axes of places there are.
    """
    found: list[tuple[str, Any]] = []

    def note(path: str, output: jax.Array) -> jax.Array:
        found.append((path, output))
        return output

    with nn.intercept_methods(_at_calls(note)):
        jax.eval_shape(lambda value: score(value), value)  # a new function: it is called anew
    paths = [path for path, _ in found]
    return {
        path: output.shape
        for path, output in found
        if paths.count(path) == 1 and grid_shape(output.shape, value.shape, axes) is not None
    }


def default(score: Score, value: Any, axes: int) -> str | None:
    """The last map of a convolutional tower; the first norm of a transformer's last block, behind
    which parts of an input need not reach the score; the last grid of all else; None without grids.
    """
    found = grids(score, value, axes)
    maps = [path for path, shape in found.items() if len(shape) > 3]
    norms = [path for path in found if path.endswith("norm_1")]
    last = maps or norms or [*found]
    return last[-1] if last else None


def activation_and_slope(
    score: Score, value: jax.Array, axes: int, layer: str
) -> tuple[jax.Array, jax.Array]:
    """A (B, *grid, C), what the layer gives of each place, and d score / dA, of the same shape.

    Raises:
        InputError: no such layer.
    """
    found = grids(score, value, axes)
    if layer not in found:
        raise InputError(f"the tower has no grid of parts at '{layer}'.{nearest(layer, found)}")

    def moved(by: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept: list[jax.Array] = []

        def move(path: str, output: jax.Array) -> jax.Array:
            if path == layer:
                kept.append(output)
                return output + by.astype(output.dtype)
            return output

        with nn.intercept_methods(_at_calls(move)):
            total = score(value).sum()
        return total, kept[0]

    slope, activation = jax.grad(moved, has_aux=True)(jnp.zeros(found[layer], jnp.float32))
    grid = grid_shape(activation.shape, value.shape, axes)
    assert grid is not None
    return _on_grid(activation.astype(jnp.float32), grid), _on_grid(slope, grid)


def grid_shape(
    output: tuple[int, ...], value: tuple[int, ...], axes: int
) -> tuple[int, ...] | None:
    """The grid of a layer's output for values (B, *places, ...); None where it is none.

    A map has as many axes. Tokens (B, T, D) stand for equal squares of the places, row by row, a
    class token first or none; where values have no channels, also for equal stretches of the first
    axis: the frames of a spectrogram. One place alone is no grid.
    """
    if len(output) < 3 or output[0] != value[0]:
        return None
    places, inner = value[1 : 1 + axes], output[1:-1]
    if len(inner) == axes > 1:
        return inner if math.prod(inner) > 1 else None
    if len(inner) > 1:
        return None
    frames = [(places[:1], (1,))] if axes == 2 and len(value) == 3 else []
    for those, rest in [(places, ()), *frames]:
        for tokens in (inner[0], inner[0] - 1):
            if (grid := _squares(tokens, those)) is not None:
                return grid + rest
    return None


def _squares(tokens: int, places: tuple[int, ...]) -> tuple[int, ...] | None:
    """The grid of so many equal squares that the places are tiled with, if there is one."""
    if tokens < 2:
        return None
    side = round((math.prod(places) / tokens) ** (1 / len(places)))
    if side < 1 or any(place % side for place in places):
        return None
    grid = tuple(place // side for place in places)
    return grid if math.prod(grid) == tokens else None


def _on_grid(x: jax.Array, grid: tuple[int, ...]) -> jax.Array:
    """Without the class token."""
    tokens = math.prod(grid)
    return x[:, -tokens:].reshape(len(x), *grid, x.shape[-1]) if x.ndim == 3 else x


def _at_calls(change: Callable[[str, jax.Array], jax.Array]) -> Any:
    """An interceptor that gives arrays that layers return to `change`, with the layer's path."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(output, jax.Array):
            return output
        return change("/".join(context.module.path), output)

    return intercept
