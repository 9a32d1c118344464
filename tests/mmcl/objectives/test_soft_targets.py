"""Soft targets against their formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.objectives import infonce, soft_targets

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state, *, teacher, mix, teacher_scale):
    scale = jnp.exp(params["log_scale"])
    present = batch["present"]
    values = {int(i): 0.0 for i in np.flatnonzero(present["image"] & present["text"])}
    for i in values:
        for a, b in (("image", "text"), ("text", "image")):
            there = np.flatnonzero(present[b])
            log_probability = jax.nn.log_softmax(
                scale * unit(embeddings[b].z)[there] @ unit(embeddings[a].z)[i]
            )
            teachers = unit(teacher(embeddings, batch, b))[there]
            soft = jax.nn.softmax(teacher_scale * teachers @ unit(teacher(embeddings, batch, a))[i])
            target = mix * soft + (1 - mix) * (there == i)
            values[i] -= jax.lax.stop_gradient(target) @ log_probability / 2
    return values


@pytest.mark.parametrize("mix", [0.4, 1.0])
@pytest.mark.parametrize("itself", [False, True])
def test_the_formula(agree, make_problem, mix, itself):
    objective = soft_targets.Objective(
        teacher=None if itself else "teacher", mix=mix, teacher_scale=6.0
    )

    def teacher(embeddings, batch, m):
        return embeddings[m].z if itself else batch["teacher"][m]

    def formula(*args):
        return dense(*args, teacher=teacher, mix=mix, teacher_scale=6.0)

    agree(objective, formula, make_problem(objective, B, D, np.float64))


def test_without_the_teacher_it_is_clip(make_problem):
    objective = soft_targets.Objective(mix=0.0)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    soft = objective(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(soft.value_B, plain.value_B, rtol=1e-5, atol=1e-5)


def test_a_teacher_of_infinite_scale_is_clip(make_problem):
    """One that knows: its own vectors are the same in both modalities, and far from all others."""
    objective = soft_targets.Objective(mix=1.0, teacher_scale=1e4)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    batch["teacher"] = {m: batch["teacher"]["image"] for m in embeddings}
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    soft = objective(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(soft.value_B, plain.value_B, rtol=1e-5, atol=1e-5)


def test_a_batch_without_the_teacher(make_problem):
    objective = soft_targets.Objective(teacher="clip")
    params, _, embeddings, batch = make_problem(soft_targets.Objective(), B, D, np.float32)
    with pytest.raises(InputError, match="config.objective.teacher: the batch has no 'clip' for"):
        objective(params, None, embeddings, batch, None)
