"""A layer inside a tower: what it gives, and how a score of the tower hangs on that.

The layer is named by its path in the tower, as its parameters are ("encoder/blocks_0/norm_1"). Its
output is that of its call, found by intercepting the call; a layer that is called twice has none.
A score that is compiled by itself, before a layer is looked at, calls none.
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


def grids(score: Score, value: Any) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of its output, in order of the calls: of those that give a place on a grid
    to parts of pictures (B, H, W, C).
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
        if paths.count(path) == 1 and grid_shape(output.shape, value.shape) is not None
    }


def default(score: Score, value: Any) -> str:
    """The last map of a convolutional tower; the first norm of a transformer's last block, behind
    which parts of a picture need not reach the score; the last grid of all else.

    Raises:
        InputError: no layer gives a grid.
    """
    found = grids(score, value)
    maps = [path for path, shape in found.items() if len(shape) == 4]
    norms = [path for path in found if path.endswith("norm_1")]
    last = [*found][-1:] if not maps and not norms else (maps or norms)[-1:]
    if not last:
        raise InputError("no layer of this tower gives a grid of parts of the picture")
    return last[0]


def activation_and_slope(score: Score, value: jax.Array, layer: str) -> tuple[jax.Array, jax.Array]:
    """A_BxHxWxC, what the layer gives of each place, and d score / dA, of the same shape.

    Raises:
        InputError: no such layer.
    """
    found = grids(score, value)
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
    grid = grid_shape(activation.shape, value.shape)
    assert grid is not None
    return _on_grid(activation.astype(jnp.float32), grid), _on_grid(slope, grid)


def grid_shape(output: tuple[int, ...], value: tuple[int, ...]) -> tuple[int, int] | None:
    """(H, W) of a layer's output for pictures (B, H, W, C); None where it is no grid of parts.

    Tokens (B, T, D) are a grid as wide to its height as the picture, by rows, a class token first
    or none. One place alone is no grid.
    """
    if len(output) == 4 and output[1] * output[2] > 1:
        return output[1], output[2]
    if len(output) != 3:
        return None
    for tokens in (output[1], output[1] - 1):
        height = math.isqrt(tokens * value[1] // value[2])
        if height and tokens > 1 and height * (height * value[2]) == tokens * value[1]:
            return height, tokens // height
    return None


def _on_grid(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Without the class token."""
    return x[:, -grid[0] * grid[1] :].reshape(len(x), *grid, x.shape[-1]) if x.ndim == 3 else x


def _at_calls(change: Callable[[str, jax.Array], jax.Array]) -> Any:
    """An interceptor that gives arrays that layers return to `change`, with the layer's path."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(output, jax.Array):
            return output
        return change("/".join(context.module.path), output)

    return intercept
