"""The softmax with a queue against its formula, and the queue against a plain list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.objectives import infonce, queue

B, D, LENGTH = 6, 4, 12


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def candidates(i, modality, embeddings, batch, state, by_label):
    """Everything of a modality that record i is compared with: its own, and all negatives."""
    z, label, past = unit(embeddings[modality].z), batch["concept"], state["queue"][modality]
    now = batch["present"][modality].copy()
    before = past["present"].copy()
    if by_label:
        now &= (label != label[i]) | (np.arange(len(z)) == i)
        before &= past["label"] != label[i]
    return jnp.concatenate([z[now], past["z"][before]])


def dense(params, embeddings, batch, state, by_label=False):
    scale = jnp.exp(params["log_scale"])
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    values = {}
    for i in np.flatnonzero(batch["present"]["image"] & batch["present"]["text"]):
        texts = candidates(i, "text", embeddings, batch, state, by_label)
        images = candidates(i, "image", embeddings, batch, state, by_label)
        among_texts, among_images = (
            logsumexp(scale * texts @ image[i]),
            logsumexp(scale * images @ text[i]),
        )
        values[i] = (among_texts + among_images) / 2 - scale * image[i] @ text[i]
    return values


@pytest.mark.parametrize("positives", [None, "concept"])
@pytest.mark.parametrize("empty", [False, True])
def test_the_formula(agree, make_problem, positives, empty):
    objective = queue.Objective(D, LENGTH, positives=positives)
    problem = make_problem(objective, B, D, np.float64)
    if empty:
        problem = problem._replace(state=jax.device_get(objective.init_state(None)))
    assert problem.state["queue"]["text"]["present"].any() != empty

    def formula(*args):
        return dense(*args, by_label=positives is not None)

    agree(objective, formula, problem)


def test_an_empty_queue_is_clip(make_problem):
    objective = queue.Objective(D, LENGTH)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    state = objective.init_state(jax.random.key(0))
    result = objective(params, state, embeddings, batch, None)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(result.terms["image_text"].value_B, plain.value_B, rtol=1e-5)
    assert result.metrics["queue_filled"] == 0


def test_the_oldest_batch_makes_room(make_problem):
    """Against a plain list of the last two batches."""
    objective = queue.Objective(D, LENGTH, positives="concept")
    state, seen = objective.init_state(jax.random.key(0)), []
    step = jax.jit(lambda *args: objective(*args, None).state)
    for seed in range(5):
        params, _, embeddings, batch = make_problem(objective, B, D, np.float32, seed)
        state = step(params, state, embeddings, batch)
        seen = (seen + [(embeddings, batch)])[-LENGTH // B :]
        for m in ("image", "text"):
            held = state["queue"][m]
            got = [
                (int(label), *np.round(z, 5))
                for z, label in zip(held["z"][held["present"]], held["label"][held["present"]])
            ]
            want = [
                (int(batch["concept"][i]), *np.round(unit(embeddings[m].z)[i], 5))
                for embeddings, batch in seen
                for i in np.flatnonzero(batch["present"][m])
            ]
            np.testing.assert_allclose(sorted(got), sorted(want), atol=2e-5)


def test_what_enters_has_no_gradient(make_problem):
    objective = queue.Objective(D, LENGTH)
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32)

    def sum_of_queue(z):
        entered = {m: e._replace(z=z) for m, e in embeddings.items()}
        return objective(params, state, entered, batch, None).state["queue"]["text"]["z"].sum()

    assert not jax.grad(sum_of_queue)(embeddings["text"].z).any()


def test_its_state_keeps_its_layout(make_problem):
    """What a checkpoint holds and a compiled step takes: the same arrays, before and after."""
    objective = queue.Objective(D, LENGTH, positives="concept")
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    before = objective.init_state(jax.random.key(0))
    after = objective(params, before, embeddings, batch, None).state
    layouts = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (before, after)]
    assert layouts[0] == layouts[1] and int(after["slot"]) == 1


@pytest.mark.parametrize("length", [0, 3, 13])
def test_a_length_that_batches_do_not_fill(make_problem, length):
    params, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float32)
    objective = queue.Objective(D, length)
    with pytest.raises(InputError, match=f"length: {length} should be a multiple of .* 6"):
        objective(params, objective.init_state(None), embeddings, batch, None)
