"""Queries with many right labels against the formulas, label by label, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import dexml

B, D, K = 7, 4, 3
PAIRS = (("image", "text"),)
EVERYBODY = {m: np.ones(B, bool) for m in ("image", "text")}


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def pool(batch):
    """{id: (record, view)} where each label is first there."""
    first = {}
    for i, k in np.argwhere(batch["text"]["present"]):
        first.setdefault(int(batch["text"]["ids"][i, k]), (i, k))
    return first


def threshold(scores, count):
    """t with Σ σ(scores + t) = count, by bisection; its slope by that of the equation."""
    still = jax.lax.stop_gradient(scores)
    low, high = -jnp.max(still) - 50, -jnp.min(still) + 50
    for _ in range(80):
        middle = (low + high) / 2
        above = jnp.sum(jax.nn.sigmoid(still + middle)) > count
        low, high = jnp.where(above, low, middle), jnp.where(above, middle, high)
    share = jax.nn.sigmoid(still + low)
    excess = jnp.sum(jax.nn.sigmoid(scores + low)) - count
    return low - excess / jnp.sum(share * (1 - share))


def dense(params, embeddings, batch, state, loss="decoupled", top=5):
    scale, first = jnp.exp(params["log_scale"]), pool(batch)
    query, views = unit(embeddings["image"].z), unit(embeddings["text"].views)
    values = {}
    for i in np.flatnonzero(batch["present"]["image"] & batch["present"]["text"]):
        right = set(batch["text"]["positives"][i].tolist()) - {-1}
        scores = {c: scale * views[place] @ query[i] for c, place in first.items()}
        positives = [s for c, s in scores.items() if c in right]
        negatives = [s for c, s in scores.items() if c not in right]
        if not positives:
            continue
        everything = jnp.stack([*positives, *negatives])
        if loss == "decoupled":
            costs = [logsumexp(jnp.stack([s, *negatives])) - s for s in positives]
        elif loss == "softmax":
            costs = [logsumexp(everything) - s for s in positives]
        else:
            t = threshold(everything, min(top, len(everything) - 0.5))
            costs = [jax.nn.softplus(-s - t) for s in positives]
        values[i] = sum(costs) / len(costs)
    return values


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("loss", ["decoupled", "softmax"])
def test_the_formula(agree, make_problem, seed, loss):
    objective = dexml.Objective(pairs=PAIRS, loss=loss)
    problem = make_problem(objective, B, D, np.float64, seed)
    there = problem.batch["text"]["present"]
    there[3 + seed] = False  # of a record that has the modality
    assert len(pool(problem.batch)) < there.sum()  # some are there twice

    def formula(*args):
        return dense(*args, loss=loss)

    agree(objective, formula, problem)


@pytest.mark.parametrize("top, seed", [(1, 0), (3, 1), (99, 0)])
def test_the_formula_of_the_soft_top(agree, make_problem, seed, top):
    objective = dexml.Objective(pairs=PAIRS, loss="soft_top_k", top=top)

    def formula(*args):
        return dense(*args, loss="soft_top_k", top=top)

    agree(objective, formula, make_problem(objective, B, D, np.float64, seed), tolerance=1e-9)


def with_labels(problem, ids, positives, present=None):
    """The same vectors of records that all have a query, with these labels."""
    labels = {
        "present": np.ones((B, K), bool) if present is None else present,
        "ids": np.broadcast_to(np.int32(ids), (B, K)).copy(),
        "positives": np.int32(positives),
    }
    return problem._replace(batch={"present": EVERYBODY, "text": labels})


@pytest.mark.parametrize("loss", ["decoupled", "softmax", "soft_top_k"])
def test_no_right_label_and_no_wrong_one(agree, make_problem, loss):
    """Records 0 and 1 have none and one that is not there; for record 2 all are right."""
    objective = dexml.Objective(pairs=PAIRS, loss=loss, top=2)
    problem = make_problem(objective, B, D, np.float64)
    positives = np.full((B, 4), -1)
    positives[1:, 0] = [9, 0, 3, 1, 2, 0]
    positives[2] = [0, 1, 2, 3]
    ids = np.arange(B * K).reshape(B, K) % 4

    def formula(*args):
        values = dense(*args, loss=loss, top=2)
        assert set(values) == set(range(2, B)) and (loss != "decoupled" or values[2] == 0)
        return values

    agree(objective, formula, with_labels(problem, ids, positives), tolerance=1e-9)


@pytest.mark.parametrize("loss", ["decoupled", "softmax", "soft_top_k"])
def test_an_absent_view_and_a_label_seen_before_have_no_say_and_no_gradient(make_problem, loss):
    """Label 5 is there in records 2 and 4, but not where it first stands, in record 1."""
    objective = dexml.Objective(pairs=PAIRS, loss=loss, top=2)
    problem = make_problem(objective, B, D, np.float32)
    ids = 10 + np.arange(B * K).reshape(B, K)
    ids[1, 2] = ids[2, 1] = ids[4, 0] = 5
    there = np.ones((B, K), bool)
    there[1, 2] = there[3, 0] = False
    counts = there.copy()
    counts[4, 0] = False
    positives = np.concatenate([ids, np.full((B, 1), 5)], axis=1)
    params, _, embeddings, batch = with_labels(problem, ids, positives, there)

    def cost(views):
        sides = {"image": embeddings["image"], "text": Embedding(0 * views[:, 0], views=views)}
        term = objective(params, None, sides, batch, None).terms["image_text"]
        return term.mean()

    run = jax.jit(jax.value_and_grad(cost))
    views = embeddings["text"].views
    value, gradient = run(views)
    assert not gradient[~counts].any() and np.abs(gradient[counts]).max(axis=1).all()
    for filler in (0, 7):
        other, slope = run(np.where(counts[..., None], views, np.float32(filler)))
        assert value == other and np.isfinite(slope).all() and not slope[~counts].any()


def test_of_one_right_label_each_decoupled_is_the_softmax(make_problem):
    problem = make_problem(dexml.Objective(pairs=PAIRS), B, D, np.float32)
    ids = np.arange(B * K).reshape(B, K) % 11
    problem = with_labels(problem, ids, np.stack([ids[:, 1], *[np.full(B, -1)] * 3], axis=1))
    both = [
        dexml.Objective(pairs=PAIRS, loss=loss)(*problem, None).terms["image_text"].value_B
        for loss in ("decoupled", "softmax")
    ]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5, atol=1e-6)
    assert np.all(both[0] > 0)


def test_of_one_label_the_soft_top_is_a_coin(make_problem):
    """Half of one label is asked for, wherever it lies."""
    objective = dexml.Objective(pairs=PAIRS, loss="soft_top_k")
    problem = make_problem(objective, B, D, np.float32)
    params, _, embeddings, batch = with_labels(problem, 3, np.full((B, 4), 3))

    def cost(views):
        sides = {"image": embeddings["image"], "text": Embedding(views[:, 0], views=views)}
        term = objective(params, None, sides, batch, None).terms["image_text"]
        return term.mean(), term

    run = jax.jit(jax.value_and_grad(cost, has_aux=True))
    (_, term), gradient = run(embeddings["text"].views)
    np.testing.assert_allclose(term.value_B, np.log(2), rtol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("log_scale", [-3.0, 3.0])
@pytest.mark.parametrize("top", [1, 5])
def test_the_soft_top_is_found_in_float32(make_problem, log_scale, top):
    """Where sigmoids are nearly flat and where they are nearly steps."""
    objective = dexml.Objective(pairs=PAIRS, loss="soft_top_k", top=top)
    problem = make_problem(objective, B, D, np.float32)
    problem = problem._replace(params={"log_scale": np.float32(log_scale)})
    term = objective(*problem, None).terms["image_text"]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype.kind == "f" else x, problem)
        values = dense(wide.params, wide.embeddings, wide.batch, None, "soft_top_k", top)
    assert values
    for i, value in values.items():
        np.testing.assert_allclose(term.value_B[i], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("top", [1, 3])
def test_steps_instead_of_sigmoids_are_finite(make_problem, top):
    """At a scale of 1000, no sum of sigmoids has a slope between one label and the next."""
    objective = dexml.Objective(pairs=PAIRS, loss="soft_top_k", top=top, max_scale=None)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)

    def cost(params, views):
        sides = {"image": embeddings["image"], "text": Embedding(views[:, 0], views=views)}
        term = objective(params, None, sides, batch, None).terms["image_text"]
        return term.mean(), term

    params = {"log_scale": np.log(np.float32(1000))}
    run = jax.jit(jax.value_and_grad(cost, (0, 1), has_aux=True))
    (_, term), gradient = run(params, embeddings["text"].views)
    assert np.isfinite(term.value_B).all() and term.weight_B.any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_no_label_at_all_costs_nothing(make_problem):
    for loss in ("decoupled", "softmax", "soft_top_k"):
        objective = dexml.Objective(pairs=PAIRS, loss=loss)
        problem = make_problem(objective, B, D, np.float32)
        nowhere = np.zeros((B, K), bool)
        params, _, embeddings, batch = with_labels(problem, 3, np.full((B, 4), 3), nowhere)

        def cost(params, views, objective=objective, embeddings=embeddings, batch=batch):
            sides = {"image": embeddings["image"], "text": Embedding(views[:, 0], views=views)}
            term = objective(params, None, sides, batch, None).terms["image_text"]
            return term.mean(), term

        run = jax.jit(jax.value_and_grad(cost, (0, 1), has_aux=True))
        (value, term), gradient = run(params, embeddings["text"].views)
        assert value == 0 and not term.weight_B.any()
        assert not any(x.any() for x in jax.tree.leaves(gradient))


def test_by_default_texts_look_for_labels():
    assert dexml.Objective().pairs == (("text", "label"),)
    assert dexml.Objective().loss == "decoupled" and dexml.Objective().top == 5


def test_labels_that_are_no_views(make_problem):
    objective = dexml.Objective(pairs=PAIRS)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    embeddings["text"] = embeddings["text"]._replace(views=None)
    with pytest.raises(InputError, match="'text'.*views.each"):
        objective(params, None, embeddings, batch, None)


def test_at_least_one_label_is_at_the_top():
    with pytest.raises(InputError, match="config.objective.top: 0 should be 1 or more"):
        dexml.Objective(top=0)
