"""The symmetric softmax against loops over pairs, written from the papers, in float64."""

import math
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce

B, D = 6, 4


def objective(**options):
    return infonce.Objective(positives="concept", **options)


def drawn(seed=0, modalities=("image", "text")):
    """Embeddings of any length."""
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=(B, D)) * rng.uniform(0.1, 9, (B, 1)) for m in modalities}


def batch(z, concept=None, present=None):
    everyone = {m: np.ones(B, bool) for m in z}
    concept = np.arange(B) if concept is None else np.asarray(concept)
    return {"concept": concept, "present": everyone | (present or {})}


def term(objective, z, data, log_scale, name="image_text"):
    embeddings = {m: Embedding(x) for m, x in z.items()}
    params = {"log_scale": log_scale}
    return objective(params, None, embeddings, data, jax.random.key(0)).terms[name]


@jax.jit
def by_label(z, data, log_scale):
    return term(objective(), z, data, log_scale)


def loss(z, data, log_scale):
    return by_label(z, data, log_scale).mean()


value_and_gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def literal(z, data, log_scale):
    """Values and weights, pair by pair."""
    image, text = unit(z["image"]), unit(z["text"])
    has_image, has_text = data["present"]["image"], data["present"]["text"]
    values, weights = np.zeros(B), np.zeros(B)
    for i in range(B):
        if not (has_image[i] and has_text[i]):
            continue
        weights[i] = 1
        for query, others, has_other in ((image, text, has_text), (text, image, has_image)):
            logits = {
                j: math.exp(log_scale) * query[i] @ others[j] for j in range(B) if has_other[j]
            }
            log_normaliser = math.log(sum(math.exp(s) for s in logits.values()))
            answers = [j for j in logits if data["concept"][j] == data["concept"][i]]
            cross_entropy = [log_normaliser - logits[j] for j in answers]
            values[i] += 0.5 * sum(cross_entropy) / len(cross_entropy)
    return values, weights


# B = 6 records: some alone, some in a pair, some of three; some without a picture or a caption.
CONCEPT = np.array([3, 1, 3, 2, 1, 3])
PRESENT = {
    "image": np.array([True, True, False, True, True, True]),
    "text": np.array([True, False, True, True, True, True]),
}


def test_one_positive_is_the_loss_of_clip():
    """Figure 3 of Radford et al. 2021."""
    z = drawn()
    logits = unit(z["image"]) @ unit(z["text"]).T * math.exp(1.3)
    probability_of_text = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probability_of_image = np.exp(logits) / np.exp(logits).sum(axis=0, keepdims=True)
    loss_image = -np.log(np.diag(probability_of_text)).mean()
    loss_text = -np.log(np.diag(probability_of_image)).mean()
    with jax.enable_x64(True):
        got = jax.jit(partial(term, infonce.Objective()))(z, batch(z, CONCEPT), np.float64(1.3))
        got = got.mean()
    np.testing.assert_allclose(got, (loss_image + loss_text) / 2, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 99),
    st.lists(st.integers(0, 3), min_size=B, max_size=B),
    st.lists(st.booleans(), min_size=2 * B, max_size=2 * B),
    st.floats(-2, 4),
)
def test_positives_by_label_and_absent_modalities(seed, concept, present, log_scale):
    z = drawn(seed)
    data = batch(z, concept, {"image": np.array(present[:B]), "text": np.array(present[B:])})
    with jax.enable_x64(True):
        got = by_label(z, data, np.float64(log_scale))
    values, weights = literal(z, data, log_scale)
    np.testing.assert_allclose(got.value_B, values, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(got.weight_B, weights)


def test_gradients_against_finite_differences():
    z = drawn()
    data = batch(z, CONCEPT, PRESENT)
    with jax.enable_x64(True):
        run = jax.jit(lambda z, log_scale: loss(z, data, log_scale))
        check_grads(run, (z, np.float64(1)), order=1, modes=["rev"], rtol=1e-7, eps=1e-6)


def test_what_is_absent_has_no_say_and_no_gradient():
    z = drawn()
    data = batch(z, CONCEPT, PRESENT)
    absent = {m: ~here for m, here in PRESENT.items()}
    value, _ = value_and_gradient(z, data, 1.0)
    for filler in (0.0, 1e3):
        filled = {m: np.where(absent[m][:, None], filler, x) for m, x in z.items()}
        other, (gradient, of_scale) = value_and_gradient(filled, data, 1.0)
        assert other == value and np.isfinite(of_scale)
        for m in z:
            np.testing.assert_array_equal(gradient[m][absent[m]], 0)
            assert np.isfinite(gradient[m]).all() and np.all(gradient[m].any(axis=1) ^ absent[m])


def test_nothing_present_costs_nothing():
    z = drawn()
    data = batch(z, None, {"image": np.zeros(B, bool)})
    value, gradient = value_and_gradient(z, data, 1.0)
    assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_every_pair_of_modalities_is_a_term():
    z = drawn(0, ("audio", "image", "text"))
    data = batch(z, CONCEPT)
    of_three = objective(pairs=(("image", "text"), ("audio", "image")))
    result = of_three(
        {"log_scale": np.float32(1)}, None, {m: Embedding(x) for m, x in z.items()}, data, None
    )
    assert list(result.terms) == ["image_text", "audio_image"] and result.state is None
    for name in result.terms:
        a, b = name.split("_")
        alone = literal({"image": z[a], "text": z[b]}, batch({"image": 0, "text": 0}, CONCEPT), 1)
        np.testing.assert_allclose(result.terms[name].value_B, alone[0], rtol=1e-5)


@pytest.mark.parametrize("log_scale, scale", [(math.log(20), 20), (math.log(100), 30), (9.0, 30)])
def test_the_scale_is_bounded_and_reported(log_scale, scale):
    z = drawn()
    bounded = objective(max_scale=30.0)
    embeddings = {m: Embedding(x) for m, x in z.items()}
    result = bounded({"log_scale": np.float32(log_scale)}, None, embeddings, batch(z), None)
    np.testing.assert_allclose(result.metrics["logit_scale"], scale, rtol=1e-6)
    values, _ = literal(z, batch(z), math.log(scale))
    np.testing.assert_allclose(result.terms["image_text"].value_B, values, rtol=1e-5, atol=1e-6)


def test_it_starts_at_the_scale_of_clip():
    params = infonce.Objective().init(jax.random.key(0))
    assert list(params) == ["log_scale"]
    np.testing.assert_allclose(np.exp(params["log_scale"]), 1 / 0.07, rtol=1e-6)
    assert infonce.Objective().max_scale == 100
