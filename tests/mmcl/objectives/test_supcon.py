"""The supervised softmax against its formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy.special import logsumexp

from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, supcon

B, D = 7, 4
WITHIN = supcon.Objective("concept", pairs=(("image", "image"),))


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def one_way(scale, query, others, label, candidates, i):
    """Cross-entropy of record i's positives among the candidates (B,), the mean of its logs."""
    logits = scale * others @ query[i]
    positives = candidates & (label == label[i])
    log_normaliser = logsumexp(logits[candidates])
    return jnp.mean(log_normaliser - logits[positives])


def dense(params, embeddings, batch, state):
    scale, label = jnp.exp(params["log_scale"]), batch["concept"]
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    return {
        i: 0.5 * one_way(scale, image, text, label, has_text, i)
        + 0.5 * one_way(scale, text, image, label, has_image, i)
        for i in np.flatnonzero(has_image & has_text)
    }


def dense_within(params, embeddings, batch, state):
    scale, label = jnp.exp(params["log_scale"]), batch["concept"]
    image, present = unit(embeddings["image"].z), batch["present"]["image"]
    values = {}
    for i in np.flatnonzero(present):
        others = present & (np.arange(len(image)) != i)
        if np.any(label[others] == label[i]):
            values[i] = one_way(scale, image, image, label, others, i)
    return values


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("within", [False, True])
def test_the_formula(agree, make_problem, seed, within):
    objective = WITHIN if within else supcon.Objective("concept")
    problem = make_problem(objective, B, D, np.float64, seed)
    assert len(set(problem.batch["concept"])) < B
    agree(objective, dense_within if within else dense, problem)


@jax.jit
def both_terms(log_scale, z, batch):
    pairs = (("image", "text"), ("image", "image"))
    embeddings = {m: Embedding(x) for m, x in z.items()}
    result = supcon.Objective("concept", pairs)(
        {"log_scale": log_scale}, None, embeddings, batch, None
    )
    return result.terms


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 99),
    st.lists(st.integers(0, 3), min_size=B, max_size=B),
    st.lists(st.booleans(), min_size=2 * B, max_size=2 * B),
    st.floats(-2, 4),
)
def test_any_labels_and_absent_modalities(seed, concept, present, log_scale):
    rng = np.random.default_rng(seed)
    z = {m: rng.normal(size=(B, D)) for m in ("image", "text")}
    batch = {
        "concept": np.array(concept, np.int32),
        "present": {"image": np.array(present[:B]), "text": np.array(present[B:])},
    }
    with jax.enable_x64(True):
        terms = both_terms(np.float64(log_scale), z, batch)
        params, embeddings = {"log_scale": log_scale}, {m: Embedding(x) for m, x in z.items()}
        for name, formula in (("image_text", dense), ("image_image", dense_within)):
            values = formula(params, embeddings, batch, None)
            expected = [values.get(i, 0.0) for i in range(B)]
            np.testing.assert_allclose(terms[name].value_B, expected, rtol=1e-11, atol=1e-11)
            np.testing.assert_array_equal(terms[name].weight_B, [i in values for i in range(B)])


def test_with_labels_of_their_own_it_is_clip(make_problem):
    params, _, embeddings, batch = make_problem(infonce.Objective(), B, D, np.float32)
    batch["concept"] = np.arange(B, dtype=np.int32)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    got = supcon.Objective("concept")(params, None, embeddings, batch, None).terms["image_text"]
    np.testing.assert_allclose(got.value_B, plain.value_B, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.weight_B, plain.weight_B)


def test_within_a_modality_labels_of_their_own_cost_nothing(make_problem):
    params, _, embeddings, batch = make_problem(WITHIN, B, D, np.float32)
    batch["concept"] = np.arange(B, dtype=np.int32)
    term = WITHIN(params, None, embeddings, batch, None).terms["image_image"]
    assert not term.weight_B.any() and term.mean() == 0
