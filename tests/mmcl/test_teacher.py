"""A teacher beside the towers: what it is, what the objective hears of it, from stage to stage."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.ema import ema_update
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers
from mmcl.objectives.term import Result, Term
from mmcl.state import TrainState
from mmcl.step import make_train_step
from mmcl.teacher import Teacher

B = 4


class Linear(nn.Module):
    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 2))
        return Embedding(inputs["value"] @ kernel + (100.0 if train else 0.0))


@dataclasses.dataclass(frozen=True)
class Apart:
    """Σ z · teacher, record by record, and the teacher's vectors as metrics."""

    def init(self, key: Any) -> dict[str, Any]:
        return {}

    def init_state(self, key: Any) -> None:
        return None

    def __call__(self, params: Any, state: Any, embeddings: Any, batch: Any, key: Any) -> Result:
        taught_BxD = batch["teacher"]["image"]
        value_B = jnp.sum(embeddings["image"].z * taught_BxD, axis=1)
        return Result({"apart": Term(value_B, jnp.ones(B))}, None, {"taught": taught_BxD})


def stepped(teacher: Teacher, micro_batches: int, steps: int) -> tuple[list[Any], list[Any]]:
    """States and metrics, from the first on."""
    rng = np.random.default_rng(0)
    params = {"image": {"kernel": jnp.float32(rng.normal(size=(3, 2)))}, "objective": {}}
    before = {"image": {"kernel": jnp.float32(rng.normal(size=(3, 2)))}}
    identity = optax.identity()
    state = TrainState(
        jnp.int32(7), params, identity.init(params), None, None, jax.random.key(0), None, before
    )
    step = make_train_step(
        Towers({"image": Linear()}),
        Apart(),
        identity,
        lambda step: 0.1,
        frozen=jax.tree.map(lambda _: False, params),
        ema=None,
        start=5,
        micro_batches=micro_batches,
        teacher=teacher,
    )
    value = np.float32(rng.normal(size=(B, 3)))
    batch = {"image": {"value": value}, "present": {"image": np.ones(B, bool)}}
    states, metrics, run = [state], [], jax.jit(step)
    for _ in range(steps):
        state, found = run(state, batch)
        states.append(state)
        metrics.append({**found, "value": value})
    return states, metrics


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_objective_hears_of_it_and_it_stays_or_follows(
    ema: float | None, micro_batches: int
) -> None:
    states, metrics = stepped(Teacher(ema), micro_batches, 3)
    kernel = states[0].teacher["image"]["kernel"]
    for i, (state, after, found) in enumerate(zip(states, states[1:], metrics)):
        np.testing.assert_allclose(state.teacher["image"]["kernel"], kernel, rtol=1e-6)
        wanted_BxD = found["value"] @ np.asarray(kernel)  # without what is random in training
        taken = found["taught"] if micro_batches == 1 else found["taught"].reshape(B, 2)
        np.testing.assert_allclose(taken, wanted_BxD, rtol=1e-4, atol=1e-5)
        gradient = found["value"].T @ wanted_BxD / B  # none comes through the teacher
        moved = state.params["image"]["kernel"] - after.params["image"]["kernel"]
        np.testing.assert_allclose(moved, 0.1 * gradient, rtol=1e-3, atol=1e-5)
        if ema is not None:
            kernel = ema_update(kernel, after.params["image"]["kernel"], ema, 2 + i)
    assert (ema is None) == bool(np.array_equal(kernel, states[0].teacher["image"]["kernel"]))


def test_a_stage_begins_with_the_towers_before_it_as_teacher(
    tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    held = {"steps": 3, "teacher": {"ema": None}}
    listed = [{"steps": 3}, held, held, {**held, "carry": ["optimizer", "teacher"]}]
    stages = experiment.stages(tiny_config | {"stages": listed})
    with jax.set_mesh(one_device):
        state = build(stages[0], one_device).init()
        assert state.teacher is None
        teachers = []
        for stage in stages[1:]:
            towers = {name: state.params[name] for name in ("image", "text")}
            state = build(stage, one_device).enter(state)
            teachers.append(state.teacher)
            if stage is not stages[3]:
                jax.tree.map(np.testing.assert_array_equal, state.teacher, towers)
            moved = jax.tree.map(lambda x: x + 1, state.params)
            state = state._replace(params=moved)
    jax.tree.map(np.testing.assert_array_equal, teachers[2], teachers[1])
    assert jax.tree.leaves(teachers[1])[0].sum() != jax.tree.leaves(teachers[0])[0].sum()


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"teacher": {"ema": None}}, "before the first stage the towers know nothing"),
        ({"teacher": {"ema": 1.0}}, "config.teacher.ema: 1.0 should be at least 0 and less than 1"),
        ({"teacher": {"decay": 0.9}}, "config.teacher.decay: unknown key"),
    ],
)
def test_what_is_wrong_is_said(tiny_config: dict[str, Any], changes: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        experiment.stages(tiny_config | changes)


def test_the_data_may_not_have_a_teacher_too(tiny_config: dict[str, Any]) -> None:
    transforms = tiny_config["transforms"] | {"teacher": [{"name": "vector.value", "length": 3}]}
    changes = {"teacher": {"ema": 0.9}, "transforms": transforms}
    with pytest.raises(InputError, match="the data have a 'teacher', too"):
        experiment.stages(tiny_config | changes)
