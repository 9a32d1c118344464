"""The temperature that follows the model against its formula, record by record, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives import macl

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def one_way(scale, query, others, candidates, i, reweigh):
    logits = scale * others @ query[i]
    cost = logsumexp(logits[candidates]) - logits[i]
    if not reweigh:
        return cost
    of_negatives = 1 - jnp.exp(logits[i] - logsumexp(logits[candidates]))
    return cost / jax.lax.stop_gradient(jnp.maximum(of_negatives, 1e-6))


def temperature(embeddings, batch, start, alpha, threshold):
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    whole = np.flatnonzero(batch["present"]["image"] & batch["present"]["text"])
    alignment = sum(image[i] @ text[i] for i in whole) / max(len(whole), 1)
    return start * (1 + alpha * (jax.lax.stop_gradient(alignment) - threshold))


def dense(params, embeddings, batch, state, start=0.1, alpha=0.5, threshold=0.0, reweigh=True):
    scale = 1 / temperature(embeddings, batch, start, alpha, threshold)
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    has_image, has_text = batch["present"]["image"], batch["present"]["text"]
    return {
        i: 0.5 * one_way(scale, image, text, has_text, i, reweigh)
        + 0.5 * one_way(scale, text, image, has_image, i, reweigh)
        for i in np.flatnonzero(has_image & has_text)
    }


def alike(embeddings):
    """The same embeddings, with texts that are near their pictures."""
    image, text = embeddings["image"].z, embeddings["text"].z
    return {"image": Embedding(image), "text": Embedding(0.5 * text + image)}


@pytest.mark.parametrize("reweigh", [True, False])
@pytest.mark.parametrize("seed, start, alpha, threshold", [(0, 0.1, 0.5, 0.0), (4, 0.3, -0.6, 0.4)])
def test_the_formula(agree, make_problem, reweigh, seed, start, alpha, threshold):
    options = {"alpha": alpha, "threshold": threshold, "reweigh": reweigh}
    objective = macl.Objective(temperature=start, **options)
    problem = make_problem(objective, B, D, np.float64, seed)
    problem = problem._replace(embeddings=alike(problem.embeddings))

    def formula(*args):
        return dense(*args, start=start, **options)

    agree(objective, formula, problem)


def test_it_learns_no_temperature():
    assert macl.Objective().init(jax.random.key(0)) == {}


def test_the_scale_is_logged(make_problem):
    """1/τ; of several pairs, each of which has its own, the mean."""
    rng = np.random.default_rng(1)
    image, text, audio = (rng.normal(size=(B, D)).astype(np.float32) for _ in range(3))
    embeddings = {
        "image": Embedding(image),
        "text": Embedding(2 * image + text),
        "audio": Embedding(audio - image),
    }
    batch = {"present": {m: rng.random(B) < 0.8 for m in embeddings}}
    objective = macl.Objective(pairs=(("image", "text"), ("audio", "image")), alpha=0.9)
    result = objective({}, None, embeddings, batch, None)
    assert list(result.terms) == ["image_text", "audio_image"]
    scales = []
    for a, b in objective.pairs:
        sides = {"image": embeddings[a], "text": embeddings[b]}
        present = {"image": batch["present"][a], "text": batch["present"][b]}
        alone = dense({}, sides, {"present": present}, None, alpha=0.9)
        for i, value in alone.items():
            np.testing.assert_allclose(result.terms[f"{a}_{b}"].value_B[i], value, rtol=1e-4)
        scales.append(1 / temperature(sides, {"present": present}, 0.1, 0.9, 0.0))
    assert abs(scales[0] - scales[1]) > 1
    np.testing.assert_allclose(result.metrics["logit_scale"], np.mean(scales), rtol=1e-5)


@pytest.mark.parametrize("alignment", [1.0, 0.0, -1.0])
def test_the_temperature_is_linear_in_the_alignment(make_problem, alignment):
    objective = macl.Objective(temperature=0.2, alpha=0.4, threshold=0.3)
    everybody = {m: np.ones(B, bool) for m in ("image", "text")}
    _, _, _, batch = make_problem(objective, B, D, np.float32, present=everybody)
    away = np.float32([alignment, np.sqrt(1 - alignment**2)])
    embeddings = {
        "image": Embedding(np.float32([[1, 0]] * B)),
        "text": Embedding(np.float32([away] * B)),
    }
    metrics = objective({}, None, embeddings, batch, None).metrics
    tau = 0.2 * (1 + 0.4 * (alignment - 0.3))
    np.testing.assert_allclose(metrics["logit_scale"], 1 / tau, rtol=1e-6)


def test_without_a_whole_record_the_alignment_is_zero(make_problem):
    halves = {"image": np.arange(B) < 3, "text": np.arange(B) > 3}
    objective = macl.Objective(threshold=0.5)
    _, _, embeddings, batch = make_problem(objective, B, D, np.float32, present=halves)
    result = objective({}, None, embeddings, batch, None)
    np.testing.assert_allclose(result.metrics["logit_scale"], 10 / 0.75, rtol=1e-6)
    assert not result.terms["image_text"].weight_B.any()


def test_a_record_that_is_sure_is_not_weighed_without_end(make_problem):
    """Its negatives' share is far below 1e-6, by which it is divided at least."""
    objective = macl.Objective(temperature=0.05)
    everybody = {m: np.ones(2, bool) for m in ("image", "text")}
    _, _, _, batch = make_problem(objective, 2, D, np.float64, present=everybody)
    z = np.float64([[3, 0], [-2, 0]])

    def loss(z):
        embeddings = {m: Embedding(z[m]) for m in z}
        term = objective({}, None, embeddings, batch, None).terms["image_text"]
        return jnp.sum(term.value_B), term

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, term), gradient = run({m: z for m in everybody})
    assert np.all(term.weight_B == 1) and np.all(np.abs(term.value_B) < 1e-4)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "alpha, threshold", [(1.0, 0.0), (-1.0, 0.0), (0.6, 0.9), (0.6, -0.9), (-0.6, 0.9)]
)
def test_a_temperature_that_may_reach_zero(make_problem, alpha, threshold):
    _, _, embeddings, batch = make_problem(macl.Objective(), B, D, np.float32)
    with pytest.raises(InputError, match="config.objective.alpha"):
        objective = macl.Objective(alpha=alpha, threshold=threshold)
        objective({}, None, embeddings, batch, None)


@pytest.mark.parametrize("alpha, threshold", [(0.99, 0.0), (-0.99, 0.0), (0.6, 0.6), (0.6, -0.6)])
def test_a_temperature_that_never_reaches_zero(make_problem, alpha, threshold):
    objective = macl.Objective(alpha=alpha, threshold=threshold)
    _, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    term = objective({}, None, embeddings, batch, None).terms["image_text"]
    assert np.isfinite(term.mean()) and term.mean() > 0


def test_it_takes_one_pass(count_products):
    assert count_products(macl.Objective()) == 4
