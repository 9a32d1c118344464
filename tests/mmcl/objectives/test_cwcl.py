"""Continuously weighted contrast against its formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import cwcl, infonce

B, D = 7, 4
LACKING = {"image": np.arange(B) != 1, "text": np.arange(B) != 4}  # one half each


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state, locked="image", other="text"):
    scale = jnp.exp(params["log_scale"])
    p = jax.lax.stop_gradient(unit(embeddings[locked].z))
    q = unit(embeddings[other].z)
    has_p, has_q = batch["present"][locked], batch["present"][other]
    both = np.flatnonzero(has_p & has_q)
    values = {}
    for i in both:
        closeness = (1 + p[both] @ p[i]) / 2
        pulled = closeness @ (scale * q[both] @ p[i]) / jnp.sum(closeness)
        forward = logsumexp(scale * q[has_q] @ p[i]) - pulled
        back = logsumexp(scale * p[has_p] @ q[i]) - scale * p[i] @ q[i]
        values[i] = (forward + back) / 2
    return values


@pytest.mark.parametrize("locked, other", [("image", "text"), ("text", "image")])
@pytest.mark.parametrize("first, seed", [(True, 0), (False, 4)])
def test_the_formula(agree, make_problem, locked, other, first, seed):
    pair = (locked, other) if first else (other, locked)
    objective = cwcl.Objective(pairs=(pair,), locked=locked)
    problem = make_problem(objective, B, D, np.float64, seed, present=LACKING)

    def formula(*args):
        return {"_".join(pair): dense(*args, locked, other)}

    agree(objective, formula, problem)


def test_a_term_of_every_pair_with_the_locked_modality():
    rng = np.random.default_rng(0)
    embeddings = {m: Embedding(rng.normal(size=(B, D))) for m in ("audio", "image", "text")}
    batch = {"present": {m: rng.random(B) < 0.8 for m in embeddings}}
    objective = cwcl.Objective(pairs=(("image", "text"), ("audio", "image")))
    terms = objective({"log_scale": np.float32(1)}, None, embeddings, batch, None).terms
    assert list(terms) == ["image_text", "audio_image"]
    for name, other in (("image_text", "text"), ("audio_image", "audio")):
        for i, value in dense({"log_scale": 1.0}, embeddings, batch, None, other=other).items():
            np.testing.assert_allclose(terms[name].value_B[i], value, rtol=1e-5)


def test_of_two_opposite_pictures_it_is_clip(make_problem):
    """Neither has a part in what the other is pulled to."""
    everybody = {m: np.ones(2, bool) for m in ("image", "text")}
    params, _, embeddings, batch = make_problem(
        cwcl.Objective(), 2, D, np.float32, present=everybody
    )
    z_1xD = embeddings["image"].z[:1]
    embeddings["image"] = Embedding(np.concatenate([z_1xD, -3 * z_1xD]))
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    weighted = cwcl.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(weighted.value_B, plain.value_B, rtol=1e-4, atol=1e-5)


def test_equal_pictures_are_pulled_to_all_texts_alike(make_problem):
    everybody = {m: np.ones(B, bool) for m in ("image", "text")}
    params, _, embeddings, batch = make_problem(
        cwcl.Objective(), B, D, np.float64, present=everybody
    )
    z_1xD = embeddings["image"].z[:1]
    embeddings["image"] = Embedding(np.repeat(z_1xD, B, axis=0))
    logits = np.exp(params["log_scale"]) * np.asarray(unit(embeddings["text"].z) @ unit(z_1xD[0]))
    forward = np.log(np.exp(logits).sum()) - logits.mean()
    got = cwcl.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(got.value_B, (forward + np.log(B)) / 2, rtol=1e-4)


def test_the_locked_side_costs_no_product_in_the_backward(count_products):
    """Two make logits and weights, again in the backward, and one the gradient of the texts."""
    assert count_products(cwcl.Objective()) == 5


@pytest.mark.parametrize("pairs", [(("audio", "text"),), (("image", "text"), ("audio", "text"))])
def test_a_pair_without_the_locked_modality(make_problem, pairs):
    rng = np.random.default_rng(0)
    embeddings = {m: Embedding(rng.normal(size=(B, D))) for m in ("audio", "image", "text")}
    batch = {"present": {m: np.ones(B, bool) for m in embeddings}}
    with pytest.raises(InputError, match="config.objective.*image"):
        objective = cwcl.Objective(pairs=pairs, locked="image")
        objective({"log_scale": np.float32(1)}, None, embeddings, batch, None)
