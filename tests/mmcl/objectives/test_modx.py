"""What the old model knows, kept, against its formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, modx

B, D = 8, 4
SIDES = (("image", "text"), ("text", "image"))
EVERYBODY = {m: np.ones(B, bool) for m in ("image", "text")}


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def knows(batch, i, a, b):
    """Whether the old model finds record i's b by its a."""
    teacher = {m: np.asarray(unit(x)) for m, x in batch["teacher"].items()}
    cosine = teacher[b] @ teacher[a][i]
    return cosine[i] >= cosine[batch["present"][b]].max()


def dense(params, embeddings, batch, state, alpha=20.0, teacher_scale=None):
    scale, has = jnp.exp(params["log_scale"]), batch["present"]
    old_scale = jax.lax.stop_gradient(scale) if teacher_scale is None else teacher_scale
    z = {m: unit(embeddings[m].z) for m in has}
    old = {m: unit(x) for m, x in batch["teacher"].items()}
    plain, kept = {}, {}
    for i in np.flatnonzero(has["image"] & has["text"]):
        plain[i], kept[i] = 0.0, 0.0
        for a, b in SIDES:
            logits = scale * z[b] @ z[a][i]
            plain[i] += (logsumexp(logits[has[b]]) - logits[i]) / 2
            if knows(batch, i, a, b):
                new = jax.nn.log_softmax(logits[has[b]])
                was = jax.nn.log_softmax(old_scale * old[b][has[b]] @ old[a][i])
                kept[i] += alpha / 2 * jnp.sum(jnp.exp(was) * (was - new))
    return {"image_text": plain, "image_text_old": kept}


@pytest.mark.parametrize("seed, options", [(0, {}), (4, {"alpha": 3.0, "teacher_scale": 5.0})])
def test_the_formula(agree, make_problem, seed, options):
    objective = modx.Objective(**options)
    problem = make_problem(objective, B, D, np.float64, seed)
    whole = np.flatnonzero(problem.batch["present"]["image"] & problem.batch["present"]["text"])
    for a, b in SIDES:
        assert {bool(knows(problem.batch, i, a, b)) for i in whole} == {True, False}

    def formula(*args):
        return dense(*args, **options)

    agree(objective, formula, problem)


def test_no_gradient_reaches_the_old_model(make_problem):
    objective = modx.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)

    def loss(teacher):
        terms = objective(params, None, embeddings, {**batch, "teacher": teacher}, None).terms
        return terms["image_text_old"].mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(batch["teacher"])
    assert value > 0 and not any(x.any() for x in gradient.values())


def test_of_a_model_that_has_not_changed_nothing_is_asked(make_problem):
    """The old logits are the new ones, and so is their scale."""
    objective = modx.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32, present=EVERYBODY)
    embeddings["text"] = Embedding(embeddings["text"].z + 2 * embeddings["image"].z)
    batch["teacher"] = {m: 3 * e.z for m, e in embeddings.items()}
    assert any(knows(batch, i, "image", "text") for i in range(B))

    def loss(params, z):
        sides = {m: Embedding(x) for m, x in z.items()}
        term = objective(params, None, sides, batch, None).terms["image_text_old"]
        return term.mean(), term

    z = {m: e.z for m, e in embeddings.items()}
    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, term), gradient = run(params, z)
    assert np.all(term.weight_B == 1)
    np.testing.assert_allclose(term.value_B, 0, atol=1e-3)
    assert all(np.abs(x).max() < 1e-3 for x in jax.tree.leaves(gradient))


def test_where_the_old_model_is_wrong_it_has_no_say(make_problem):
    """It takes every text for that of the next picture."""
    objective = modx.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32, present=EVERYBODY)
    batch["teacher"] = {"image": np.eye(B, dtype=np.float32)}
    batch["teacher"]["text"] = np.roll(batch["teacher"]["image"], 1, axis=0)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    terms = objective(params, None, embeddings, batch, None).terms
    assert np.all(terms["image_text_old"].weight_B == 1)
    assert not terms["image_text_old"].value_B.any()
    np.testing.assert_allclose(terms["image_text"].value_B, plain.value_B, rtol=1e-5)


def test_two_that_the_old_model_cannot_tell_apart_are_both_known(agree, make_problem):
    """Records 0 and 1 have the same old vectors, so their own cosine is not the only largest."""
    objective = modx.Objective(teacher_scale=4.0)
    problem = make_problem(objective, B, D, np.float64, present=EVERYBODY)
    same = np.eye(B)[[0, 0, *range(2, B)]]
    problem.batch["teacher"] = {"image": same, "text": same}
    assert all(knows(problem.batch, i, a, b) for i in range(B) for a, b in SIDES)

    def formula(*args):
        return dense(*args, teacher_scale=4.0)

    agree(objective, formula, problem)


@pytest.mark.parametrize("missing", ["teacher", "image", "text"])
def test_a_batch_without_the_old_model(make_problem, missing):
    objective = modx.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    if missing == "teacher":
        del batch["teacher"]
    else:
        del batch["teacher"][missing]
    with pytest.raises(InputError, match="config.teacher"):
        objective(params, None, embeddings, batch, None)


def test_it_takes_one_pass(count_products):
    """Four products of the model, and those of the old one, a dimension wider, in both passes."""
    assert count_products(modx.Objective()) == pytest.approx(4 + 2 * 65 / 64)
