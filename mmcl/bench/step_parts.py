"""A training step in three programs: towers, loss, optimiser.

A compiled step is one program, in which no clock can tell the parts apart. Here each is compiled by
itself and does what the step does there: the loss has its gradients to the embeddings and to its
own parameters, the towers go forward, and backward from these gradients, and the optimiser is given
the gradients of both. One after another they make the same step.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcl import experiment, optimizers, sharding
from mmcl.built_stage import BuiltStage
from mmcl.micro_batches import joined, one_by_one
from mmcl.objectives.term import Result, reads_tokens
from mmcl.state import TrainState
from mmcl.step import held, keyed, make_update, of_all, step_keys
from pallas_kernels.pair_reduce.flops import operations


class Part(NamedTuple):
    """One of the programs.

    Attributes:
        run: training state -> results.
        flops: of its products.
    """

    run: Callable[[TrainState], Any]
    flops: float


class Parts(NamedTuple):
    """The parts of a step on one batch.

    Attributes:
        towers: gives a number and the gradients to the towers' parameters.
        loss: gives its value and the gradients to its own parameters and to the embeddings.
        optimizer: gives the next state, but for what the objective remembers; the state that it is
            given is used up.
    """

    towers: Part
    loss: Part
    optimizer: Part


def parts(built: BuiltStage, state: TrainState, batch: Mapping[str, Any]) -> Parts:
    """The parts of a stage's step, compiled; each has run once but the optimiser.

    Args:
        state: what the gradients, which all later runs begin with, are made of; it is not used up.
        batch: on the devices, as the step is given it.
    """
    settings = built.stage.settings
    towers, objective = experiment.build_towers(settings), experiment.build_objective(settings)
    frozen = optimizers.frozen(state.params, settings.optimizer.get("freeze", ()))
    optimizer = optimizers.make(state.params, **settings.optimizer)
    schedule = experiment.build_schedule(settings)
    whole_update = make_update(optimizer, schedule, ema=settings.ema, start=built.stage.start)

    k = settings.micro_batches

    def encode(params: dict[str, Any], batch: Mapping[str, Any]) -> Any:
        fixed = {name: frozen[name] for name in params}

        def of_part(part: Mapping[str, Any]) -> Any:
            return towers.encode_all(held(params, fixed), part, train=True)

        inputs = {modality: batch[modality] for modality in towers.modules}
        return of_part(inputs) if k == 1 else joined(one_by_one(of_part, inputs, k))

    def value(own: dict[str, Any], embeddings: Any, memory: Any, batch: Any, key: Any) -> Any:
        params = held(own["objective"], frozen["objective"])

        def of_part(part: tuple[Any, Any]) -> Result:
            return objective(params, memory, *part, key)

        if k > 1 and reads_tokens(objective):
            result = of_all(one_by_one(of_part, (embeddings, batch), k))
        else:
            result = of_part((embeddings, batch))
        total = sum((term.mean() for term in result.terms.values()), start=jnp.float32(0))
        return total, (result.state, result.metrics)

    def split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        own = {"objective": params["objective"]}
        return {name: tree for name, tree in params.items() if name not in own}, own

    of_towers, own = split(state.params)
    towers_key, key = step_keys(state)
    batch = {**batch, **keyed(batch, towers.modules, towers_key)}
    rest = (state.objective, batch, key)
    embeddings = jax.jit(encode)(of_towers, batch)
    leaves, tree = jax.tree.flatten(embeddings)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    floats = {i for i, x in enumerate(shapes) if jnp.issubdtype(x.dtype, jnp.floating)}
    read = floats & _read(value, own, embeddings, *rest)
    z = {i: x for i, x in enumerate(leaves) if i in read}
    masks = {i: x for i, x in enumerate(leaves) if i not in floats}
    del embeddings, leaves

    def loss_of(own: dict[str, Any], z: Any, masks: Any, *rest: Any) -> Any:
        found = [
            z[i] if i in z else masks[i] if i in masks else jnp.zeros(x.shape, x.dtype)
            for i, x in enumerate(shapes)
        ]
        return value(own, jax.tree.unflatten(tree, found), *rest)

    def towers_of(params: dict[str, Any], batch: Any, cotangents: Any) -> jax.Array:
        found = jax.tree.leaves(encode(params, batch))
        return jnp.asarray(sum(jnp.vdot(found[i], ct) for i, ct in cotangents.items()))

    def update(state: TrainState, grads: dict[str, Any]) -> tuple[TrainState, Any]:
        return whole_update(state, grads, state.objective)

    where = sharding.shardings(built.placed, built.mesh)
    grad_loss = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True))
    grad_towers = jax.jit(
        jax.value_and_grad(towers_of), out_shardings=(None, split(where.params)[0])
    )
    updated = jax.jit(update, donate_argnums=0, out_shardings=(where, None))

    _, (own_grads, cotangents) = grad_loss(own, z, masks, *rest)
    _, grads = grad_towers(of_towers, batch, cotangents)
    grads = {**grads, **own_grads}
    flops = [
        operations(program.trace(*args).jaxpr.jaxpr)
        for program, args in (
            (grad_towers, (of_towers, batch, cotangents)),
            (grad_loss, (own, z, masks, *rest)),
            (updated, (state, grads)),
        )
    ]
    del of_towers, own, rest  # a step may use them up
    runs = (
        lambda state: grad_towers(split(state.params)[0], batch, cotangents),
        lambda state: grad_loss(split(state.params)[1], z, masks, state.objective, batch, key),
        lambda state: updated(state, grads)[0],
    )
    return Parts(*map(Part, runs, flops))


def _read(function: Callable[..., Any], own: Any, embeddings: Any, *rest: Any) -> set[int]:
    """Which leaves of the embeddings the function looks at."""
    jaxpr = jax.make_jaxpr(lambda z: function(own, z, *rest))(embeddings).jaxpr
    seen = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    return {i for i, var in enumerate(jaxpr.invars) if id(var) in seen}
