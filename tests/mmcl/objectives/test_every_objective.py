"""What holds for every objective: what is absent has no say, and nothing at all costs nothing."""

from pathlib import Path

import jax
import numpy as np
import pytest

import mmcl.objectives

B, D = 12, 5


@pytest.fixture
def value_and_gradient(make_objective):
    objective = make_objective(B, D)

    @jax.jit
    def run(params, state, embeddings, batch):
        def loss(params, embeddings):
            result = objective(params, state, embeddings, batch, jax.random.key(0))
            (term,) = result.terms.values()
            return term.mean(), (term, result)

        value_and_grad = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)
        (value, (term, _)), gradient = value_and_grad(params, embeddings)
        return value, term, gradient

    return objective, run


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if x.dtype.kind == "f"]


def filled(embeddings, absent, filler):
    """The same embeddings with other numbers where nothing is present."""

    def fill(x, gone_B):
        if x is None or x.dtype == bool:
            return x
        return np.where(gone_B.reshape(-1, *(1,) * (x.ndim - 1)), np.float32(filler), x)

    return {m: type(e)(*(fill(x, absent[m]) for x in e)) for m, e in embeddings.items()}


def test_what_is_absent_has_no_say_and_no_gradient(value_and_gradient, make_problem):
    objective, run = value_and_gradient
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    absent = {m: ~here for m, here in batch["present"].items()}
    assert all(gone.any() for gone in absent.values())
    value, term, _ = run(params, state, embeddings, batch)
    assert value != 0 and np.isfinite(term.value_B).all()
    for filler in (0.0, 1e3):
        others = filled(embeddings, absent, filler)
        other, _, (of_params, of_embeddings) = run(params, state, others, batch)
        assert other == value and all(np.isfinite(x).all() for x in floats(of_params))
        for m in embeddings:
            for gradient in floats(of_embeddings[m]):
                assert np.isfinite(gradient).all() and not gradient[absent[m]].any()


def test_a_record_without_one_half_has_no_weight(value_and_gradient, make_problem):
    objective, run = value_and_gradient
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    _, term, _ = run(params, state, embeddings, batch)
    whole = batch["present"]["image"] & batch["present"]["text"]
    if ("image", "image") in objective.pairs:
        whole = batch["present"]["image"]
    assert term.weight_B.dtype == np.float32 and not np.any(term.weight_B[~whole])
    assert np.any(term.weight_B[whole]) and not np.any(term.value_B[term.weight_B == 0])


@pytest.mark.parametrize("without", [("image",), ("image", "text")])
def test_nothing_present_costs_nothing(value_and_gradient, make_problem, without):
    objective, run = value_and_gradient
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32)
    for m in without:
        batch["present"][m] = np.zeros(B, bool)
    value, _, gradient = run(params, state, embeddings, batch)
    assert value == 0 and not any(x.any() for x in floats(gradient))


def test_what_it_multiplies_similarities_by_is_logged(make_objective, make_problem):
    objective = make_objective(B, D)
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    for log_scale in (-0.5, 2.0):
        params["log_scale"] = np.float32(log_scale)
        metrics = objective(params, state, embeddings, batch, jax.random.key(0)).metrics
        np.testing.assert_allclose(metrics["logit_scale"], np.exp(log_scale), rtol=1e-6)


def test_no_objective_is_forgotten(all_objectives):
    folder = Path(mmcl.objectives.__file__).parent
    written = {
        file.stem for file in folder.glob("*.py") if "\nclass Objective:" in file.read_text()
    }
    assert all_objectives == written


def test_a_batch_of_one_is_finite(make_objective, make_problem):
    objective = make_objective(1, D)
    params, state, embeddings, batch = make_problem(objective, 1, D, np.float32, seed=1)
    batch["present"] = {m: np.ones(1, bool) for m in embeddings}

    def loss(embeddings):
        result = objective(params, state, embeddings, batch, jax.random.key(0))
        return sum(term.mean() for term in result.terms.values())

    value, gradient = jax.jit(jax.value_and_grad(loss, allow_int=True))(embeddings)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in floats(gradient))
