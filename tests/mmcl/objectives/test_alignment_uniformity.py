"""Alignment and uniformity against their formulas, pair by pair, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from mmcl.models.embedding import Embedding
from mmcl.objectives import alignment_uniformity, infonce

B, D = 7, 4


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def spread(u, v, has_u, has_v, t):
    """log mean exp(-t · squared distance) over u_j and v_k, j ≠ k; None where there are none."""
    pairs = [(j, k) for j in np.flatnonzero(has_u) for k in np.flatnonzero(has_v) if j != k]
    if not pairs:
        return None
    j, k = np.array(pairs).T
    return jnp.log(jnp.mean(jnp.exp(-t * jnp.sum((u[j] - v[k]) ** 2, axis=1))))


def dense(params, embeddings, batch, state, align=1.0, uniform=1.0, cross=0.0, t=2.0):
    scale, has = jnp.exp(params["log_scale"]), batch["present"]
    image, text = unit(embeddings["image"].z), unit(embeddings["text"].z)
    both = np.flatnonzero(has["image"] & has["text"])
    terms = {"image_text": {}}
    for i in both:
        among_texts = logsumexp(scale * text[has["text"]] @ image[i])
        among_images = logsumexp(scale * image[has["image"]] @ text[i])
        own = scale * image[i] @ text[i]
        terms["image_text"][i] = (among_texts + among_images) / 2 - own
    if align:
        distances = {i: jnp.sum((image[i] - text[i]) ** 2) for i in both}
        terms["image_text_alignment"] = {i: align * distances[i] for i in both}
    scalars = {}
    if uniform:
        for m, u in (("image", image), ("text", text)):
            within = spread(u, u, has[m], has[m], t)
            scalars[f"{m}_uniformity"] = uniform / 2, within, np.flatnonzero(has[m])
    if cross:
        between = spread(image, text, has["image"], has["text"], t)
        scalars["image_text_uniformity"] = cross, between, both
    for name, (factor, value, who) in scalars.items():
        terms[name] = {i: factor * value for i in who} if value is not None else {}
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"align": 0.5, "uniform": 0.3, "cross": 0.7, "t": 3.0},
        {"align": 0.0, "uniform": 0.0, "cross": 2.0},
    ],
)
def test_the_formula(agree, make_problem, options):
    objective = alignment_uniformity.Objective(**options)

    def formula(*args):
        return dense(*args, **options)

    agree(objective, formula, make_problem(objective, B, D, np.float64, seed=len(options)))


ONE, TWO, ANOTHER = np.arange(B) == 2, np.isin(np.arange(B), (2, 5)), np.arange(B) == 5


@pytest.mark.parametrize("image, text", [(ONE, TWO), (ONE, ONE), (ONE, ANOTHER)])
def test_of_few_records_those_pairs_that_there_are(agree, make_problem, image, text):
    """One record makes no pair; two make one, even where neither has both modalities."""
    objective = alignment_uniformity.Objective(cross=1.0)

    def formula(*args):
        return dense(*args, cross=1.0)

    present = {"image": image, "text": text}
    agree(objective, formula, make_problem(objective, B, D, np.float64, present=present))


def test_of_all_in_one_point_and_of_two_poles(make_problem):
    objective = alignment_uniformity.Objective(align=0.5, uniform=0.4, cross=0.3, t=1.5)
    params, _, _, batch = make_problem(objective, 2, D, np.float32)
    batch["present"] = {m: np.ones(2, bool) for m in ("image", "text")}
    pole = np.arange(1, D + 1, dtype=np.float32)
    run = jax.jit(lambda embeddings: objective(params, None, embeddings, batch, None).terms)
    for sign, squared in ((1, 0), (-1, 4)):  # of the two images, of the two texts and across
        embeddings = {m: Embedding(np.stack([pole, 7 * sign * pole])) for m in batch["present"]}
        terms = run(embeddings)
        for name, factor in (("image", 0.2), ("text", 0.2), ("image_text", 0.3)):
            values = terms[f"{name}_uniformity"].value_B
            np.testing.assert_allclose(values, -factor * 1.5 * squared, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(terms["image_text_alignment"].value_B, 0, atol=1e-5)
    embeddings["text"] = Embedding(-embeddings["image"].z)
    terms = run(embeddings)
    np.testing.assert_allclose(terms["image_text_alignment"].value_B, 0.5 * 4, rtol=1e-5)


def test_each_modality_is_spread_once():
    rng = np.random.default_rng(0)
    embeddings = {m: Embedding(rng.normal(size=(B, D))) for m in ("audio", "image", "text")}
    batch = {"present": {m: rng.random(B) < 0.8 for m in embeddings}}
    pairs = (("image", "text"), ("audio", "image"))
    objective = alignment_uniformity.Objective(pairs=pairs, cross=1.0)
    run = jax.jit(lambda params: objective(params, None, embeddings, batch, None).terms)
    terms = run({"log_scale": np.float32(1)})
    names = {f"{a}_{b}{suffix}" for a, b in pairs for suffix in ("", "_alignment", "_uniformity")}
    assert set(terms) == names | {f"{m}_uniformity" for m in embeddings}
    for a, b in pairs:
        sides = {"image": embeddings[a], "text": embeddings[b]}
        present = {"image": batch["present"][a], "text": batch["present"][b]}
        alone = dense({"log_scale": 1.0}, sides, {"present": present}, None, cross=1.0)
        renamed = {"image": a, "text": b}
        for name, values in alone.items():
            term = terms["_".join(renamed.get(word, word) for word in name.split("_"))]
            np.testing.assert_array_equal(term.weight_B, [i in values for i in range(B)])
            for i, value in values.items():
                np.testing.assert_allclose(term.value_B[i], value, rtol=1e-4)


def test_without_its_terms_it_is_clip(make_problem):
    objective = alignment_uniformity.Objective(align=0.0, uniform=0.0)
    params, _, embeddings, batch = make_problem(objective, B, D, np.float32)
    plain = infonce.Objective()(params, None, embeddings, batch, None).terms["image_text"]
    terms = objective(params, None, embeddings, batch, None).terms
    assert list(terms) == ["image_text"]
    np.testing.assert_allclose(terms["image_text"].value_B, plain.value_B, rtol=1e-5, atol=1e-6)


def test_points_far_apart_are_no_underflow(make_problem):
    """e^(-t · 4) of two poles is no float32 from t = 26 on; its logarithm is -4 · t."""
    objective = alignment_uniformity.Objective(t=100.0, cross=1.0)
    params, _, _, batch = make_problem(objective, 2, D, np.float32)
    batch["present"] = {m: np.ones(2, bool) for m in ("image", "text")}
    pole = np.ones(D, np.float32)

    def loss(z):
        embeddings = {m: Embedding(x) for m, x in z.items()}
        terms = objective(params, None, embeddings, batch, None).terms
        return sum(term.mean() for term in terms.values()), terms

    z = {m: np.stack([pole, -pole]) for m in batch["present"]}
    (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(z)
    np.testing.assert_allclose(terms["text_uniformity"].value_B, -0.5 * 400, rtol=1e-5)
    np.testing.assert_allclose(terms["image_text_uniformity"].value_B, -400, rtol=1e-5)
    assert all(np.isfinite(x).all() for x in gradient.values())
