"""Nested prefixes against their formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, matryoshka

B, D = 7, 6


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state, weights):
    scale = jnp.exp(params["log_scale"])
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    terms = {}
    for m, weight in weights.items():
        image, text = unit(embeddings["image"].z[:, :m]), unit(embeddings["text"].z[:, :m])
        values = terms[f"image_text_{m}"] = {}
        for i in np.flatnonzero(has_image & has_text):
            among_texts = logsumexp(scale * text[has_text] @ image[i])
            among_images = logsumexp(scale * image[has_image] @ text[i])
            values[i] = (among_texts + among_images) / 2 - scale * image[i] @ text[i]
            values[i] *= weight
    return terms


@pytest.mark.parametrize(
    "seed, weights", [(0, {2: 1.0, 3: 1.0, 6: 1.0}), (4, {1: 0.5, 5: 2.0}), (1, {4: 1.0})]
)
def test_the_formula(agree, make_problem, seed, weights):
    given = None if set(weights.values()) == {1.0} else tuple(weights.values())
    objective = matryoshka.Objective(prefixes=tuple(weights), weights=given)

    def formula(*args):
        return dense(*args, weights=weights)

    agree(objective, formula, make_problem(objective, B, D, np.float64, seed))


def test_every_prefix_of_every_pair_is_a_term(make_problem):
    rng = np.random.default_rng(0)
    embeddings = {m: Embedding(rng.normal(size=(B, D))) for m in ("audio", "image", "text")}
    batch = {"present": {m: np.ones(B, bool) for m in embeddings}}
    pairs = (("image", "text"), ("audio", "image"))
    objective = matryoshka.Objective(prefixes=(2, 4), pairs=pairs)
    terms = objective({"log_scale": np.float32(1)}, None, embeddings, batch, None).terms
    assert set(terms) == {"image_text_2", "image_text_4", "audio_image_2", "audio_image_4"}
    params = {"log_scale": np.float32(1)}
    for m in (2, 4):
        short = {modality: Embedding(e.z[:, :m]) for modality, e in embeddings.items()}
        plain = infonce.Objective(pairs=pairs)(params, None, short, batch, None).terms
        for pair in plain:
            np.testing.assert_allclose(
                terms[f"{pair}_{m}"].value_B, plain[pair].value_B, rtol=1e-4, atol=1e-5
            )


def test_dimensions_past_the_last_prefix_have_no_say_and_no_gradient(make_problem):
    objective = matryoshka.Objective(prefixes=(2, 4))
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)

    def loss(z):
        sides = {m: Embedding(x) for m, x in z.items()}
        terms = objective(params, None, sides, batch, None).terms
        return sum(term.mean() for term in terms.values())

    run = jax.jit(jax.value_and_grad(loss))
    z = {m: e.z for m, e in embeddings.items()}
    others = {m: np.concatenate([x[:, :4], 9 * x[:, 4:] + 1], axis=1) for m, x in z.items()}
    (value, gradient), (other, _) = run(z), run(others)
    assert value == other
    assert all(x[:, :4].any() and not x[:, 4:].any() for x in gradient.values())


def test_a_prefix_of_zeros_is_finite(make_problem):
    """A record whose first dimensions are all zero has no direction there, as in `unit`."""
    objective = matryoshka.Objective(prefixes=(2, 6))
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)

    def loss(z):
        sides = {m: Embedding(x) for m, x in z.items()}
        terms = objective(params, None, sides, batch, None).terms
        return sum(term.mean() for term in terms.values())

    z = {m: np.where(np.arange(D) < 2, 0, e.z).astype(np.float32) for m, e in embeddings.items()}
    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in gradient.values())


def test_all_prefixes_take_the_products_of_one(count_products):
    assert count_products(matryoshka.Objective(prefixes=(8, 16, 64))) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"prefixes": ()},
        {"prefixes": (0, 4)},
        {"prefixes": (-2, 4)},
        {"prefixes": (4, 2)},
        {"prefixes": (2, 2)},
        {"prefixes": (2, D + 1)},
        {"prefixes": (2, 4), "weights": (1.0,)},
        {"prefixes": (2, 4), "weights": (1.0, 1.0, 1.0)},
    ],
)
def test_options_that_make_no_sense(make_problem, options):
    params, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float32)
    name = "weights" if "weights" in options else "prefixes"
    with pytest.raises(InputError, match=f"config.objective.{name}"):
        matryoshka.Objective(**options)(params, None, embeddings, batch, None)
