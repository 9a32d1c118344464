"""The decoupled loss against its formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from mmcl.objectives import decoupled

B, D, SIGMA = 7, 4, 0.5


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state, weigh=False):
    scale = jnp.exp(params["log_scale"])
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    whole = np.flatnonzero(has_image & has_text)
    closeness = {i: jnp.exp(image[i] @ text[i] / SIGMA) for i in whole}
    values = {}
    for i in whole:
        other_text = has_text & (np.arange(len(image)) != i)
        other_image = has_image & (np.arange(len(image)) != i)
        among_texts = logsumexp(scale * text[other_text] @ image[i])
        among_images = logsumexp(scale * image[other_image] @ text[i])
        weight = 2 - closeness[i] / (sum(closeness.values()) / len(whole)) if weigh else 1
        values[i] = (among_texts + among_images) / 2 - weight * scale * image[i] @ text[i]
    return values


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_the_formula(agree, make_problem, seed, sigma):
    objective = decoupled.Objective(sigma=sigma)

    def formula(*args):
        return dense(*args, weigh=sigma is not None)

    agree(objective, formula, make_problem(objective, B, D, np.float64, seed))


def test_the_weight_is_one_on_average(make_problem):
    """Where all pairs are equally close, weighting them changes nothing."""
    params, _, embeddings, batch = make_problem(decoupled.Objective(), B, D, np.float32)
    same = {m: type(e)(embeddings["image"].z) for m, e in embeddings.items()}
    plain, weighted = (
        decoupled.Objective(sigma=sigma)(params, None, same, batch, None).terms["image_text"]
        for sigma in (None, SIGMA)
    )
    np.testing.assert_allclose(weighted.value_B, plain.value_B, rtol=1e-4, atol=1e-5)


def test_a_record_without_negatives_has_no_weight(make_problem):
    objective = decoupled.Objective(sigma=SIGMA)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    batch["present"] = {m: np.arange(B) == 2 for m in embeddings}

    def loss(embeddings):
        term = objective(params, None, embeddings, batch, None).terms["image_text"]
        return term.mean(), term

    pooled = {m: type(e)(e.z) for m, e in embeddings.items()}
    (value, term), gradient = jax.value_and_grad(loss, has_aux=True)(pooled)
    assert value == 0 and not term.weight_B.any()
    assert not any(x.any() for x in jax.tree.leaves(gradient))
