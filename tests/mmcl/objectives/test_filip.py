"""Late interaction against its formula, token by token, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import filip, infonce

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def there(embedding, i):
    """The unit tokens of record i that are no padding."""
    tokens = unit(embedding.tokens[i])
    return tokens if embedding.mask is None else tokens[embedding.mask[i]]


def looks_among(own, others):
    """Mean over own tokens of the cosine to the nearest of the others."""
    return jnp.mean(jnp.max(own @ others.T, axis=1))


def dense(params, embeddings, batch, state):
    scale = jnp.exp(params["log_scale"])
    tokens = {m: [there(e, i) for i in range(B)] for m, e in embeddings.items()}
    has = {m: batch["present"][m] & np.array([len(t) > 0 for t in tokens[m]]) for m in tokens}
    values = {}
    for i in np.flatnonzero(has["image"] & has["text"]):
        image, text = tokens["image"][i], tokens["text"][i]
        among_texts = [
            scale * looks_among(image, tokens["text"][j]) for j in np.flatnonzero(has["text"])
        ]
        among_images = [
            scale * looks_among(text, tokens["image"][j]) for j in np.flatnonzero(has["image"])
        ]
        own = scale * (looks_among(image, text) + looks_among(text, image))
        both = logsumexp(jnp.stack(among_texts)) + logsumexp(jnp.stack(among_images))
        values[i] = (both - own) / 2
    return values


@pytest.mark.parametrize("seed", [0, 1])
def test_the_formula(agree, make_problem, seed):
    objective = filip.Objective()
    problem = make_problem(objective, B, D, np.float64, seed)
    words = problem.embeddings["text"].mask.sum(axis=1)
    assert words.min() == 0 and words.max() > 1  # one caption without any word

    def formula(params, embeddings, batch, state):  # which tokens are there is no variable
        fixed = {m: e._replace(mask=problem.embeddings[m].mask) for m, e in embeddings.items()}
        return dense(params, fixed, batch, state)

    agree(objective, formula, problem)


def test_padding_has_no_say_and_no_gradient(make_problem):
    objective = filip.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    image, text = embeddings["image"], embeddings["text"]

    def loss(tokens):
        sides = {"image": image, "text": text._replace(tokens=tokens)}
        return objective(params, None, sides, batch, None).terms["image_text"].mean()

    run = jax.jit(jax.value_and_grad(loss))
    value, gradient = run(text.tokens)
    other, _ = run(np.where(text.mask[..., None], text.tokens, np.float32(5)))
    assert value == other and not gradient[~text.mask].any() and gradient[text.mask].any()


def test_of_one_token_each_it_is_clip(make_problem):
    params, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float32)
    single = {m: Embedding(e.z, e.z[:, None, :]) for m, e in embeddings.items()}
    late = filip.Objective()(params, None, single, batch, None).terms["image_text"]
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(late.value_B, plain.value_B, rtol=1e-4, atol=1e-5)


def test_a_tower_without_tokens(make_problem):
    params, _, embeddings, batch = make_problem(filip.Objective(), B, D, np.float32)
    embeddings["image"] = Embedding(embeddings["image"].z)
    with pytest.raises(InputError, match="the tower of 'image' gives no tokens"):
        filip.Objective()(params, None, embeddings, batch, None)
