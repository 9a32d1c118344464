"""Where in a step the first number that is not finite comes from."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl import experiment, optimizers
from mmcl.array_names import array_names
from mmcl.experiment import Settings
from mmcl.state import TrainState
from mmcl.step import held, keyed, step_keys
from mmcl.teacher import taught


def first_not_finite(settings: Settings, state: TrainState, batch: Mapping[str, Any]) -> str:
    """In words: a parameter, a layer's output, the objective, or the gradient of a layer.

    The towers are run operation by operation, in the order of the forward pass; layers inside a
    scan cannot be told apart. The gradient comes the other way: of the layers with a gradient that
    is not finite the last is named.
    """
    towers, objective = experiment.build_towers(settings), experiment.build_objective(settings)
    frozen = optimizers.frozen(state.params, settings.optimizer.get("freeze", ()))
    if broken := _not_finite(state.params):
        return f"The parameter {broken[0]} is not finite before this step."
    towers_key, key = step_keys(state)
    batch = taught(towers, state, batch)
    batch = {**batch, **keyed(batch, towers.modules, towers_key)}
    layers: list[str] = []  # in the order in which they end
    found: list[str] = []

    def look(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = next_fun(*args, **kwargs)
        layer = "/".join([modality, *context.module.path])
        layers.append(layer)
        if not found and _not_finite(result):
            found.append(layer)
        return result

    embeddings = {}
    for modality in towers.modules:
        with nn.intercept_methods(look):
            inputs = batch[modality]
            embeddings[modality] = towers.encode(state.params, modality, inputs, train=True)
        if found:
            return f"The first layer whose output is not finite is {found[0]}."

    def loss(params: Any, embeddings: Any) -> jax.Array:
        result = objective(params["objective"], state.objective, embeddings, batch, key)
        return sum((term.mean() for term in result.terms.values()), start=jnp.float32(0))

    if _not_finite(jax.jit(loss)(state.params, embeddings)):
        return "All towers' outputs are finite, and the objective's value is not."

    def whole(params: Any) -> jax.Array:
        params = held(params, frozen)
        return loss(params, towers.encode_all(params, batch, train=True))

    broken = _not_finite(jax.jit(jax.grad(whole))(state.params))
    if not broken:
        return "Once more, and alone, everything in this step is finite."
    order = {layer: i for i, layer in enumerate(layers)}
    last = max(broken, key=lambda name: order.get(name.rpartition("/")[0], len(layers)))
    return f"The loss is finite; backward, the first gradient that is not is that of {last}."


def _not_finite(tree: Any) -> list[str]:
    """Names of the arrays in which there is such a number; a scan's inside has none to look at."""
    names = jax.tree.leaves(array_names(tree))
    return [
        name
        for name, x in zip(names, jax.tree.leaves(tree), strict=True)
        if not isinstance(x, jax.core.Tracer)
        and jnp.issubdtype(x.dtype, jnp.floating)
        and not bool(jnp.isfinite(x).all())
    ]
