"""A step in micro-batches against the same step of the whole batch."""

import dataclasses
import functools
import re
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.errors import InputError
from data_pipelines.loader import numeric
from mmcl import built_stage, experiment
from mmcl.mesh import data_mesh, split_whole_batch
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers
from mmcl.models.transformer import Encoder
from mmcl.objectives import filip, infonce, queue, sigmoid
from mmcl.objectives.term import Result, Term
from mmcl.state import TrainState
from mmcl.step import make_train_step

B, T, D = 24, 3, 6


class Tokens(nn.Module):
    """A layer, with half of the numbers of every record dropped by its own key."""

    dropped: bool = False

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x_BxTxD = nn.tanh(nn.Dense(D, param_dtype=jnp.float64)(inputs["value"]))
        if self.dropped and train:
            draw = functools.partial(jax.random.bernoulli, shape=x_BxTxD.shape[1:])
            x_BxTxD = jnp.where(jax.vmap(draw)(inputs["key"]), x_BxTxD, 0.0)
        return Embedding(x_BxTxD.mean(axis=1), x_BxTxD, None)


def batch_of() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    present = {m: np.ones(B, bool) for m in ("image", "text")}
    present["text"][[3, 8]] = False
    return {
        "image": {"value": rng.normal(size=(B, T, 5))},
        "text": {"value": rng.normal(size=(B, T, 4))},
        "source": rng.integers(0, 2, B).astype(np.int32),
        "present": present,
    }


def step_of(
    k: int,
    objective: Any,
    *,
    dropped: bool = False,
    frozen: tuple[str, ...] = (),
    devices: int = 1,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of a step of k micro-batches, and the gradients it took, all float64."""
    mesh = data_mesh(jax.devices()[:devices])
    with jax.enable_x64(True), jax.set_mesh(mesh):
        towers = Towers({"image": Tokens(dropped), "text": Tokens(dropped)}, jnp.dtype("float64"))
        params = towers.init(jax.random.key(0), batch_of())
        learned = jax.tree.map(jnp.float64, objective.init(jax.random.key(1)))
        params = {**params, "objective": learned}
        memory = objective.init_state(jax.random.key(2))
        identity = optax.identity()
        state = TrainState(
            jnp.int32(3), params, identity.init(params), memory, None, jax.random.key(7)
        )
        step = make_train_step(
            towers,
            objective,
            identity,
            lambda step: 1.0,
            frozen={
                name: jax.tree.map(lambda _, f=name in frozen: f, tree)
                for name, tree in params.items()
            },
            ema=None,
            start=0,
            sources=("x", "y"),
            micro_batches=k,
        )
        after, metrics = jax.jit(step)(state, split_whole_batch(batch_of(), mesh))
        grads = jax.tree.map(lambda a, b: a - b, params, after.params)
        return jax.device_get((metrics, {**grads, "state": after.objective}))


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13), a, b)


CASES = {
    "infonce": (infonce.Objective(), {}),
    "sigmoid": (sigmoid.Objective(), {}),
    "what it remembers": (queue.Objective(embed_dim=D, length=2 * B), {}),
    "random towers": (infonce.Objective(), {"dropped": True}),
    "a frozen tower": (infonce.Objective(), {"frozen": ("text",)}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_number_and_gradient_is_that_of_the_whole_batch(case: str) -> None:
    """Temperature and bias included, on one device and on several."""
    objective, options = CASES[case]
    whole = step_of(1, objective, **options)
    assert any(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(whole[1]["objective"]))
    assert_same(step_of(6, objective, **options), whole)
    assert_same(step_of(3, objective, devices=4, **options), whole)


def test_random_towers_draw_by_record() -> None:
    towers = Towers({"image": Tokens(True), "text": Tokens(True)}, jnp.dtype("float64"))
    a, b = (step_of(1, infonce.Objective(), dropped=d)[0]["loss"] for d in (False, True))
    assert len(towers.modules) == 2 and a != b


@dataclasses.dataclass(frozen=True)
class PerRecord:
    """A loss of tokens in which no record meets another: parts of the batch make no difference."""

    reads_tokens: ClassVar[bool] = True
    total: bool = False

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {"x": jnp.float32(0.3)}

    def init_state(self, key: jax.Array) -> None:
        return None

    def __call__(
        self, params: Any, state: None, embeddings: Any, batch: Any, key: jax.Array
    ) -> Result:
        tokens = embeddings["image"].tokens * embeddings["text"].tokens
        value_B = jnp.sin(params["x"] * tokens.sum(axis=(1, 2)))
        weight_B = batch["present"]["text"] * (1.0 + batch["source"])
        total = jnp.sum(value_B * weight_B) if self.total else None
        return Result({"a": Term(value_B, weight_B, total)}, None, {"x": params["x"]})


@pytest.mark.parametrize("total", [False, True])
def test_terms_of_tokens_are_averaged_over_the_whole_batch(total: bool) -> None:
    whole = step_of(1, PerRecord(total))
    assert_same(step_of(4, PerRecord(total)), whole)
    assert_same(step_of(3, PerRecord(total), devices=8), whole)


def test_what_compares_tokens_sees_its_micro_batch() -> None:
    """The mean of the losses of records m, m + k, ...; the same on any number of devices."""
    k, objective = 3, filip.Objective()
    metrics, _ = step_of(k, objective)
    assert_same(step_of(k, objective, devices=4)[0], metrics)
    with jax.enable_x64(True):
        batch = batch_of()
        towers = Towers({"image": Tokens(), "text": Tokens()}, jnp.dtype("float64"))
        params = towers.init(jax.random.key(0), batch)
        learned = jax.tree.map(jnp.float64, objective.init(jax.random.key(1)))
        sums = np.zeros(2)
        for m in range(k):
            part = jax.tree.map(lambda x, m=m: x[m::k], batch)
            embeddings = {
                name: towers.encode(params, name, part[name], train=True) for name in towers.modules
            }
            result = objective(learned, None, embeddings, part, jax.random.key(0))
            (term,) = result.terms.values()
            sums += [np.sum(term.value_B * term.weight_B), np.sum(term.weight_B)]
    np.testing.assert_allclose(metrics["loss"], sums[0] / sums[1], rtol=1e-12)


class Deep(nn.Module):
    """A transformer, whose activations outweigh what goes in and comes out."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        return Embedding(Encoder(2, 2)(inputs["value"]).mean(axis=1))


def compiled(k: int, objective: Any, devices: int, size: int = 64) -> Any:
    """The compiled step of a batch of pixels."""
    mesh = data_mesh(jax.devices()[:devices])
    towers, identity = Towers({"image": Deep(), "text": Deep()}), optax.identity()
    batch = {m: {"value": jax.ShapeDtypeStruct((size, 32, 16), jnp.uint8)} for m in towers.modules}
    batch["present"] = {m: jax.ShapeDtypeStruct((size,), jnp.bool_) for m in towers.modules}

    def init(key: jax.Array) -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
        params = {**towers.init(key, zeros), "objective": objective.init(key)}
        return TrainState(jnp.int32(0), params, identity.init(params), None, None, key)

    state = jax.eval_shape(init, jax.random.key(0))
    step = make_train_step(
        towers,
        objective,
        identity,
        lambda step: 1.0,
        frozen=jax.tree.map(lambda _: False, state.params),
        ema=None,
        start=0,
        micro_batches=k,
    )
    rows = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    with jax.set_mesh(mesh):
        return jax.jit(step, in_shardings=(whole, rows)).lower(state, batch).compile()


def test_only_one_part_of_the_activations_is_kept(optimized: None) -> None:
    one, eight = (
        compiled(k, infonce.Objective(), 1).memory_analysis().temp_size_in_bytes for k in (1, 8)
    )
    assert eight < one / 4


def test_no_example_moves() -> None:
    """Parts are made on every device of what it has: gradients are all that is sent."""

    @dataclasses.dataclass(frozen=True)
    class Pooled(PerRecord):
        reads_tokens: ClassVar[bool] = False

        def __call__(
            self, params: Any, state: None, embeddings: Any, batch: Any, key: jax.Array
        ) -> Result:
            value_B = params["x"] * jnp.sum(embeddings["image"].z * embeddings["text"].z, axis=1)
            return Result({"a": Term(value_B, jnp.ones(len(value_B)))}, None, {})

    program = compiled(4, Pooled(), 8).as_text()
    sent = set(re.findall(r"\b(all-[a-z]+|collective-[a-z]+|reduce-scatter)(?=[(-])", program))
    assert sent == {"all-reduce"}


# Bad input


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x = nn.BatchNorm(use_running_average=not train)(inputs["value"])
        return Embedding(x.mean(axis=1))


def test_a_tower_that_looks_at_other_records_is_refused() -> None:
    towers = Towers({"image": Normalised()})
    with pytest.raises(InputError, match="config.towers.image: it keeps batch_stats beside"):
        towers.init(jax.random.key(0), batch_of())


def test_a_batch_that_does_not_divide(tiny_config: dict[str, Any]) -> None:
    (stage,) = experiment.stages({**tiny_config, "micro_batches": 3})
    with pytest.raises(InputError) as error:
        built_stage.build(stage, data_mesh(jax.devices()[:2]))
    assert str(error.value) == (
        "config.micro_batches: 16 records on 2 devices do not divide into 3; make "
        "config.batch_size a multiple of 6."
    )


def test_tokens_and_memory_together_are_refused(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PerRecord, "init_state", lambda self, key: jnp.zeros(3))
    monkeypatch.setattr(experiment, "build_objective", lambda settings: PerRecord())
    (stage,) = experiment.stages({**tiny_config, "micro_batches": 2})
    with pytest.raises(InputError, match="config.micro_batches: this objective reads tokens and"):
        built_stage.build(stage, data_mesh(jax.devices()[:1]))


@pytest.mark.long
def test_the_trainer_takes_the_same_steps(tiny_config: dict[str, Any]) -> None:
    losses = []
    for k in (1, 4):
        (stage,) = experiment.stages({**tiny_config, "micro_batches": k})
        mesh = data_mesh(jax.devices()[:2])
        built = built_stage.build(stage, mesh)
        with jax.set_mesh(mesh):
            state, told = built.init(), []
            for batch in list(built.batches(0, built.order()))[:3]:
                state, metrics = built.train_step(state, split_whole_batch(numeric(batch), mesh))
                told.append(float(metrics["loss"]))
        losses.append(told)
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
