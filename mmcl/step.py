"""One training step: a pure function of (state, batch)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmcl.ema import ema_update
from mmcl.models.towers import Towers
from mmcl.objectives.term import Objective, Term
from mmcl.state import TrainState

Metrics = dict[str, jax.Array]


def make_train_step(
    towers: Towers,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    frozen: Any,
    ema: float | None,
    start: int,
    sources: Sequence[str] = (),
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]:
    """The step function of one stage.

    Args:
        optimizer: gives the direction; the step goes −(learning rate) · direction.
        schedule: step in this stage -> learning rate.
        frozen: pytree of bool like the parameters: True costs no backward pass.
        ema: decay of the averaged parameters; None for no average.
        start: the step at which this stage begins.
        sources: the names behind `batch["source"]`, if the data is a mixture: its terms are then
            also averaged by source.
    """

    def loss_fn(
        params: dict[str, Any], state: TrainState, batch: Mapping[str, Any]
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen)
        embeddings = {
            modality: towers.encode(params, modality, batch[modality], train=True)
            for modality in towers.modules
        }
        key = jax.random.fold_in(state.key, state.step)
        result = objective(params["objective"], state.objective, embeddings, batch, key)
        means = {name: term.mean() for name, term in result.terms.items()}
        loss = sum(means.values(), start=jnp.float32(0))
        parts = {
            f"by_source/{name}/{source}": _mean_where(term, batch["source"] == i)
            for name, term in result.terms.items()
            for i, source in enumerate(sources)
        }
        return loss, (result.state, {"loss": loss, **means, **parts, **result.metrics})

    def train_step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, (objective_state, metrics)), grads = grad_fn(state.params, state, batch)
        direction, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        lr = schedule(state.step - start)
        params = jax.tree.map(lambda p, d: (p - lr * d).astype(p.dtype), state.params, direction)
        step = state.step + 1
        average = None if ema is None else ema_update(state.ema, params, ema, state.step)
        norms = {f"grad_norm/{name}": optax.tree.norm(tree) for name, tree in grads.items()}
        new = TrainState(step, params, optimizer_state, objective_state, average, state.key)
        return new, {**metrics, "lr": lr, **norms}

    return train_step


def _mean_where(term: Term, here_B: jax.Array) -> jax.Array:
    """The mean of a term over some examples; NaN where none of them counts."""
    weight_B = jnp.where(here_B, jax.lax.stop_gradient(term.weight_B), 0.0)
    value_B = jnp.where(weight_B > 0, jax.lax.stop_gradient(term.value_B), 0.0)
    return jnp.sum(weight_B * value_B) / jnp.sum(weight_B)
