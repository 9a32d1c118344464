"""One training step: a pure function of (state, batch)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmcl.ema import ema_update
from mmcl.mesh import examples_split
from mmcl.micro_batches import joined, one_by_one
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers
from mmcl.objectives.term import Objective, Result, Term, reads_tokens
from mmcl.state import TrainState
from mmcl.teacher import Teacher, of_towers, taught

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
    micro_batches: int = 1,
    teacher: Teacher | None = None,
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
        micro_batches: parts of the batch that the towers encode one after the other, keeping
            embeddings only (`mmcl.micro_batches`). The objective still sees the whole batch, but
            one that reads tokens is asked part by part.
        teacher: what the objective also hears of; None: `state.teacher` is None, too.
    """

    update = make_update(optimizer, schedule, ema=ema, start=start)

    def judge(params: dict[str, Any], state: TrainState, batch: Mapping[str, Any]) -> Result:
        towers_key, key = step_keys(state)
        batch = taught(towers, state, batch, micro_batches)
        batch = {**batch, **keyed(batch, towers.modules, towers_key)}

        def of_part(part: Mapping[str, Any]) -> Result:
            embeddings = towers.encode_all(params, part, train=True)
            return objective(params["objective"], state.objective, embeddings, part, key)

        if micro_batches == 1:
            return of_part(batch)
        if reads_tokens(objective):
            return of_all(one_by_one(of_part, batch, micro_batches))

        def pooled(part: Mapping[str, Any]) -> dict[str, Embedding]:
            whole = towers.encode_all(params, part, train=True)
            return {m: Embedding(one.z, views=one.views) for m, one in whole.items()}

        inputs = {modality: batch[modality] for modality in towers.modules}
        embeddings = joined(one_by_one(pooled, inputs, micro_batches))
        return objective(params["objective"], state.objective, embeddings, batch, key)

    def loss_fn(
        params: dict[str, Any], state: TrainState, batch: Mapping[str, Any]
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        result = judge(held(params, frozen), state, batch)
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
        new, told = update(state, grads, objective_state)
        if teacher is not None and teacher.ema is not None:
            params = of_towers(towers, new.params)
            average = ema_update(state.teacher, params, teacher.ema, state.step - start)
            new = new._replace(teacher=average)
        return new, {**metrics, **told}

    return train_step


def held(params: Any, frozen: Any) -> Any:
    """Parameters of which those that are frozen get no gradient."""
    return jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen)


def make_update(
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    ema: float | None,
    start: int,
) -> Callable[[TrainState, dict[str, Any], Any], tuple[TrainState, Metrics]]:
    """The end of a step: (state, gradients, what the objective remembers now) -> the next state.

    Args: those of `make_train_step`.
    """

    def update(
        state: TrainState, grads: dict[str, Any], objective_state: Any
    ) -> tuple[TrainState, Metrics]:
        direction, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        lr = schedule(state.step - start)
        params = jax.tree.map(lambda p, d: (p - lr * d).astype(p.dtype), state.params, direction)
        step = state.step + 1
        average = None if ema is None else ema_update(state.ema, params, ema, state.step)
        norms = {f"grad_norm/{name}": optax.tree.norm(tree) for name, tree in grads.items()}
        new = state._replace(
            step=step,
            params=params,
            optimizer=optimizer_state,
            objective=objective_state,
            ema=average,
        )
        return new, {"lr": lr, **norms}

    return update


def step_keys(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """The keys of the next step: of the towers, and of the objective."""
    towers_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
    return towers_key, key


def keyed(
    batch: Mapping[str, Any], modalities: Iterable[str], key: jax.Array
) -> dict[str, dict[str, Any]]:
    """The inputs of the towers, each record with a key of its own for what is random in them.

    It hangs on the record's place in the global batch alone: neither devices nor micro-batches
    change what is drawn.

    Returns:
        modality -> its inputs and `key` (B,), of typed keys.
    """
    made = {}
    for i, modality in enumerate(sorted(modalities)):
        places = jnp.arange(len(batch["present"][modality]))
        keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, i), places)
        made[modality] = {**batch[modality], "key": examples_split(keys_B)}
    return made


def of_all(parts: Result) -> Result:
    """The results of all micro-batches, of leaves (k, ...), as one of the batch."""
    terms = {
        name: Term(
            joined(term.value_B),
            joined(term.weight_B),
            None if term.total is None else jnp.sum(term.total),
        )
        for name, term in parts.terms.items()
    }
    return Result(terms, None, jax.tree.map(lambda x: jnp.mean(x, axis=0), parts.metrics))


def _mean_where(term: Term, here_B: jax.Array) -> jax.Array:
    """The mean of a term over some examples; NaN where none of them counts."""
    weight_B = jnp.where(here_B, jax.lax.stop_gradient(term.weight_B), 0.0)
    value_B = jnp.where(weight_B > 0, jax.lax.stop_gradient(term.value_B), 0.0)
    return jnp.sum(weight_B * value_B) / jnp.sum(weight_B)
