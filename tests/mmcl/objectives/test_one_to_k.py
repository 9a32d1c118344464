"""One record against K views each, against the formula, view by view, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, one_to_k

B, D, K = 7, 4, 3
EVERYBODY = {m: np.ones(B, bool) for m in ("image", "text")}


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense(params, embeddings, batch, state):
    scale = jnp.exp(params["log_scale"])
    image, views = unit(embeddings["image"].z), unit(embeddings["text"].views)
    has_image, there = batch["present"]["image"], batch["text"]["present"]
    values = {}
    for i in np.flatnonzero(has_image & there.any(axis=1)):
        own = [views[i, k] for k in np.flatnonzero(there[i])]
        among_views = logsumexp(scale * views[there] @ image[i])
        to_views = among_views - sum(scale * view @ image[i] for view in own) / len(own)
        to_image = [
            logsumexp(scale * image[has_image] @ view) - scale * view @ image[i] for view in own
        ]
        values[i] = (to_views + sum(to_image) / len(own)) / 2
    return values


@pytest.mark.parametrize("seed", [0, 2])
def test_the_formula(agree, make_problem, seed):
    objective = one_to_k.Objective()
    present = {"image": np.arange(B) != 1, "text": np.arange(B) != 4}
    problem = make_problem(objective, B, D, np.float64, seed, present=present)
    there = problem.batch["text"]["present"]
    there[seed] = False  # of a record that is there
    assert len(set(there.sum(axis=1))) > 2
    agree(objective, dense, problem)


def test_an_absent_view_has_no_say_and_no_gradient(make_problem):
    objective = one_to_k.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    there, text = batch["text"]["present"], embeddings["text"]

    def loss(views):
        sides = {"image": embeddings["image"], "text": text._replace(views=views)}
        return objective(params, None, sides, batch, None).terms["image_text"].mean()

    run = jax.jit(jax.value_and_grad(loss))
    value, gradient = run(text.views)
    for filler in (0, 7):
        other, slope = run(np.where(there[..., None], text.views, np.float32(filler)))
        assert value == other and np.isfinite(slope).all()
        assert not slope[~there].any() and slope[there].any(axis=1).all()
    np.testing.assert_array_equal(slope, gradient)


def test_of_one_view_each_it_is_clip(make_problem):
    objective = one_to_k.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    text = embeddings["text"].z
    single = {**embeddings, "text": Embedding(0 * text, views=text[:, None, :])}
    batch["text"] = {"present": batch["present"]["text"][:, None]}
    got = objective(params, None, single, batch, None).terms["image_text"]
    np.testing.assert_allclose(got.value_B, plain.value_B, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.weight_B, plain.weight_B)


def test_of_equal_views_a_picture_finds_its_own_as_often_less_surely(make_problem):
    """K copies of the text: the picture's cross-entropy grows by log K, that of a text does not."""
    objective = one_to_k.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32, present=EVERYBODY)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    copies = np.repeat(embeddings["text"].z[:, None, :], K, axis=1)
    embeddings["text"] = Embedding(embeddings["text"].z, views=copies)
    batch["text"] = {"present": np.ones((B, K), bool)}
    got = objective(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(got.value_B, plain.value_B + np.log(K) / 2, rtol=1e-4)


def test_the_order_of_views_and_who_is_absent_among_them_is_no_matter(make_problem):
    objective = one_to_k.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    value = objective(params, None, embeddings, batch, None).terms["image_text"].value_B
    text, there = embeddings["text"], batch["text"]["present"]
    embeddings["text"] = text._replace(views=text.views[:, [2, 0, 1]])
    batch["text"] = {"present": there[:, [2, 0, 1]]}
    turned = objective(params, None, embeddings, batch, None).terms["image_text"].value_B
    np.testing.assert_allclose(turned, value, rtol=1e-5, atol=1e-6)


def test_a_modality_without_views(make_problem):
    objective = one_to_k.Objective()
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    embeddings["text"] = embeddings["text"]._replace(views=None)
    with pytest.raises(InputError, match="'text'.*views.each"):
        objective(params, None, embeddings, batch, None)


def test_it_takes_one_pass_over_all_views(count_products):
    assert count_products(one_to_k.Objective()) == 4 * K
