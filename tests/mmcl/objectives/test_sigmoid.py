"""The pairwise sigmoid against loops over pairs, written from the paper, in float64."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from mmcl.models.embedding import Embedding
from mmcl.objectives import sigmoid

B, D = 6, 4


def objective(**options):
    return sigmoid.Objective(positives="concept", **options)


def drawn(seed=0):
    """Embeddings of any length."""
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=(B, D)) * rng.uniform(0.1, 9, (B, 1)) for m in ("image", "text")}


def batch(concept=None, present=None):
    everyone = {m: np.ones(B, bool) for m in ("image", "text")}
    concept = np.arange(B) if concept is None else np.asarray(concept)
    return {"concept": concept, "present": everyone | (present or {})}


def params(log_scale, bias):
    return {"log_scale": log_scale, "bias": bias}


def result(objective, z, data, params):
    embeddings = {m: Embedding(x) for m, x in z.items()}
    return objective(params, None, embeddings, data, jax.random.key(0))


@jax.jit
def by_label(z, data, params):
    return result(objective(), z, data, params).terms["image_text"]


def loss(z, data, params):
    return by_label(z, data, params).mean()


value_and_gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def literal(z, data, log_scale, bias):
    """Values and weights, pair by pair: log(1 + exp(-logit)) where paired, log(1 + exp(logit))."""
    image, text = unit(z["image"]), unit(z["text"])
    has_image, has_text = data["present"]["image"], data["present"]["text"]
    values, weights = np.zeros(B), np.zeros(B)
    for i in range(B):
        weights[i] = has_image[i] and has_text[i]
        for j in range(B):
            if weights[i] and has_text[j]:
                logit = math.exp(log_scale) * image[i] @ text[j] + bias
                sign = 1 if data["concept"][i] == data["concept"][j] else -1
                values[i] += math.log(1 + math.exp(-sign * logit))
    return values, weights


# B = 6 records: some alone, some in a pair, some of three; some without a picture or a caption.
CONCEPT = np.array([3, 1, 3, 2, 1, 3])
PRESENT = {
    "image": np.array([True, True, False, True, True, True]),
    "text": np.array([True, False, True, True, True, True]),
}


def test_one_positive_is_equation_1_of_siglip():
    """Zhai et al. 2023: -1/B sum_i sum_j log 1 / (1 + exp(z_ij (-t x_i . y_j - b)))."""
    z, t, b = drawn(), 7.0, -3.0
    x, y = unit(z["image"]), unit(z["text"])
    sign = 2 * np.eye(B) - np.ones((B, B))
    want = -np.log(1 / (1 + np.exp(sign * (-t * x @ y.T - b)))).sum() / B
    with jax.enable_x64(True):
        run = jax.jit(partial(result, sigmoid.Objective()))
        terms = run(z, batch(CONCEPT), params(np.log(t), np.float64(b))).terms
        got = terms["image_text"].mean()
    np.testing.assert_allclose(got, want, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 99),
    st.lists(st.integers(0, 3), min_size=B, max_size=B),
    st.lists(st.booleans(), min_size=2 * B, max_size=2 * B),
    st.floats(-2, 4),
    st.floats(-12, 12),
)
def test_positives_by_label_and_absent_modalities(seed, concept, present, log_scale, bias):
    z = drawn(seed)
    data = batch(concept, {"image": np.array(present[:B]), "text": np.array(present[B:])})
    with jax.enable_x64(True):
        got = by_label(z, data, params(np.float64(log_scale), np.float64(bias)))
    values, weights = literal(z, data, log_scale, bias)
    np.testing.assert_allclose(got.value_B, values, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(got.weight_B, weights)


def dense(params, embeddings, data, state, label):
    """The same as `literal`, to be differentiated."""
    image, text = (
        z / jnp.linalg.norm(z, axis=1, keepdims=True)
        for z in (embeddings["image"].z, embeddings["text"].z)
    )
    logits = jnp.exp(params["log_scale"]) * image @ text.T + params["bias"]
    sign = np.where(label[:, None] == label, 1, -1)
    losses = jnp.log1p(jnp.exp(-sign * logits))
    has_image, has_text = data["present"]["image"], data["present"]["text"]
    return {i: losses[i, has_text].sum() for i in np.flatnonzero(has_image & has_text)}


@pytest.mark.parametrize("positives", [None, "concept"])
def test_the_formula(agree, make_problem, positives):
    """Gradients too, which are made in the forward pass."""
    objective = sigmoid.Objective(positives=positives)
    problem = make_problem(objective, B, D, np.float64, seed=3)
    label = np.arange(B) if positives is None else problem.batch["concept"]
    agree(objective, partial(dense, label=label), problem)


def test_gradients_against_finite_differences():
    z = drawn()
    data = batch(CONCEPT, PRESENT)
    learned = params(np.float64(1), np.float64(-2))
    with jax.enable_x64(True):
        run = jax.jit(lambda z, params: loss(z, data, params))
        check_grads(run, (z, learned), order=1, modes=["rev"], rtol=1e-7, eps=1e-6)


def test_sure_pairs_do_not_overflow():
    z = {"image": np.eye(B, dtype=np.float32), "text": np.eye(B, dtype=np.float32)}
    value, (_, gradient) = value_and_gradient(z, batch(), params(math.log(1e4), -200.0))
    assert value == 0 and gradient["log_scale"] == gradient["bias"] == 0
    value, (_, gradient) = value_and_gradient(z, batch(), params(0.0, 200.0))
    np.testing.assert_allclose(value, (B - 1) * 200, rtol=1e-6)
    np.testing.assert_allclose(gradient["bias"], B - 1, rtol=1e-6)


def test_it_starts_as_in_the_paper_and_reports_scale_and_bias():
    learned = sigmoid.Objective().init(jax.random.key(0))
    got = result(sigmoid.Objective(), drawn(), batch(), learned)
    assert set(learned) == {"log_scale", "bias"} and set(got.metrics) == {
        "logit_scale",
        "logit_bias",
    }
    np.testing.assert_allclose(got.metrics["logit_scale"], 10, rtol=1e-6)
    assert got.metrics["logit_bias"] == -10 and got.state is None
    bounded = result(sigmoid.Objective(max_scale=4.0), drawn(), batch(), learned)
    np.testing.assert_allclose(bounded.metrics["logit_scale"], 4, rtol=1e-6)
