"""The symmetric softmax against its formula, record by record, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state):
    scale = jnp.exp(params["log_scale"])
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    values = {}
    for i in np.flatnonzero(has_image & has_text):
        among_texts = logsumexp(scale * text[has_text] @ image[i])
        among_images = logsumexp(scale * image[has_image] @ text[i])
        values[i] = (among_texts + among_images) / 2 - scale * image[i] @ text[i]
    return values


@pytest.mark.parametrize("seed", [0, 4])
def test_the_formula(agree, make_problem, seed):
    objective = infonce.Objective()
    agree(objective, dense, make_problem(objective, B, D, np.float64, seed))


def test_it_is_the_loss_of_clip(make_problem):
    """Figure 3 of Radford et al. 2021."""
    _, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float64)
    batch["present"] = {m: np.ones(B, bool) for m in embeddings}
    image, text = (np.asarray(unit(embeddings[m].z)) for m in ("image", "text"))
    logits = image @ text.T * math.exp(1.3)
    probability_of_text = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probability_of_image = np.exp(logits) / np.exp(logits).sum(axis=0, keepdims=True)
    loss_image = -np.log(np.diag(probability_of_text)).mean()
    loss_text = -np.log(np.diag(probability_of_image)).mean()
    got = infonce.Objective()({"log_scale": np.float32(1.3)}, None, embeddings, batch, None)
    mean = got.terms["image_text"].mean()
    np.testing.assert_allclose(mean, (loss_image + loss_text) / 2, rtol=1e-5)


def test_every_pair_of_modalities_is_a_term():
    rng = np.random.default_rng(0)
    embeddings = {m: Embedding(rng.normal(size=(B, D))) for m in ("audio", "image", "text")}
    batch = {"present": {m: np.ones(B, bool) for m in embeddings}}
    of_three = infonce.Objective(pairs=(("image", "text"), ("audio", "image")))
    result = of_three({"log_scale": np.float32(1)}, None, embeddings, batch, None)
    assert list(result.terms) == ["image_text", "audio_image"] and result.state is None
    for a, b in of_three.pairs:
        renamed = {"image": embeddings[a], "text": embeddings[b]}
        alone = dense({"log_scale": 1.0}, renamed, batch, None)
        values = result.terms[f"{a}_{b}"].value_B
        np.testing.assert_allclose(values, list(alone.values()), rtol=1e-5)


@pytest.mark.parametrize("log_scale, scale", [(math.log(20), 20), (math.log(100), 30), (9.0, 30)])
def test_the_scale_is_bounded_and_reported(make_problem, log_scale, scale):
    bounded = infonce.Objective(max_scale=30.0)
    _, _, embeddings, batch = make_problem(bounded, B, D, np.float32)
    result = bounded({"log_scale": np.float32(log_scale)}, None, embeddings, batch, None)
    np.testing.assert_allclose(result.metrics["logit_scale"], scale, rtol=1e-6)
    values = dense({"log_scale": math.log(scale)}, embeddings, batch, None)
    for i, value in values.items():
        np.testing.assert_allclose(result.terms["image_text"].value_B[i], value, rtol=1e-4)


def test_it_starts_at_the_scale_of_clip():
    params = infonce.Objective().init(jax.random.key(0))
    assert list(params) == ["log_scale"]
    np.testing.assert_allclose(np.exp(params["log_scale"]), 1 / 0.07, rtol=1e-6)
    assert infonce.Objective().max_scale == 100
