"""Weighted negatives against their formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from mmcl.models.embedding import Embedding
from mmcl.objectives import hardness, infonce

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def one_way(scale, query, others, candidates, i, alpha):
    """Cross-entropy of record i, where a negative counts e^(alpha · cos) times."""
    cosine = others @ query[i]
    own, negatives = scale * cosine[i], cosine[candidates & (np.arange(len(others)) != i)]
    weighted = scale * negatives + alpha * jax.lax.stop_gradient(negatives)
    return logsumexp(jnp.append(weighted, own)) - own


def dense(params, embeddings, batch, state, alpha=9.0):
    scale = jnp.exp(params["log_scale"])
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    return {
        i: 0.5 * one_way(scale, image, text, has_text, i, alpha)
        + 0.5 * one_way(scale, text, image, has_image, i, alpha)
        for i in np.flatnonzero(has_image & has_text)
    }


@pytest.mark.parametrize("seed, alpha", [(0, 9.0), (4, -1.5)])
def test_the_formula(agree, make_problem, seed, alpha):
    objective = hardness.Objective(alpha=alpha)

    def formula(*args):
        return dense(*args, alpha=alpha)

    agree(objective, formula, make_problem(objective, B, D, np.float64, seed))


@pytest.mark.parametrize("cosine, times", [(0.0, 1.0), (1.0, np.exp(3.0)), (-0.6, np.exp(-1.8))])
def test_how_often_a_negative_counts(make_problem, cosine, times):
    """Of two records, whose own cosines are 1, by the one cosine of all that are no pairs."""
    objective = hardness.Objective(alpha=3.0)
    everybody = {m: np.ones(2, bool) for m in ("image", "text")}
    _, _, _, batch = make_problem(objective, 2, 2, np.float32, present=everybody)
    z = np.float32([[5, 0], [cosine, np.sqrt(1 - cosine**2)]])
    embeddings = {m: Embedding(z) for m in everybody}
    params = {"log_scale": np.log(np.float32(2))}
    term = objective(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(term.value_B, np.log1p(times * np.exp(2 * cosine - 2)), rtol=1e-5)


def test_without_a_weight_it_is_clip(make_problem):
    params, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float32)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    got = hardness.Objective(alpha=0.0)(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(got.value_B, plain.value_B, rtol=1e-4, atol=1e-5)


def test_a_record_without_negatives_costs_nothing(make_problem):
    objective = hardness.Objective()
    only = {m: np.arange(B) == 2 for m in ("image", "text")}
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32, present=only)

    def loss(z):
        sides = {m: Embedding(x) for m, x in z.items()}
        term = objective(params, None, sides, batch, None).terms["image_text"]
        return term.mean(), term

    z = {m: e.z for m, e in embeddings.items()}
    (value, term), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(z)
    assert value == 0 and term.weight_B[2] == 1 and np.sum(term.weight_B) == 1
    assert all(np.abs(x).max() < 1e-6 for x in jax.tree.leaves(gradient))


def test_it_takes_one_pass(count_products):
    assert count_products(hardness.Objective()) == 4
