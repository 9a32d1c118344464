"""What holds for every objective: what is absent has no say, and nothing at all costs nothing."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

import mmcl.objectives

B, D = 12, 5


@pytest.fixture
def value_and_gradient(make_objective):
    objective = make_objective(B, D)
    return objective, program(objective)


@functools.cache
def program(objective):
    """Value, terms and gradients, compiled once for all tests."""

    @jax.jit
    def run(params, state, embeddings, batch):
        def loss(params, embeddings):
            terms = objective(params, state, embeddings, batch, jax.random.key(0)).terms
            return sum(term.mean() for term in terms.values()), terms

        value_and_grad = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)
        (value, terms), gradient = value_and_grad(params, embeddings)
        return value, terms, gradient

    return run


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if x.dtype.kind == "f"]


def modalities(name):
    """What the name of a term says it is about, each once."""
    return {word for word in name.split("_") if word in ("image", "text")}


def filled(embeddings, batch, absent, filler):
    """Both with other numbers where nothing is present."""

    def fill(x, gone_B):
        if x is None or x.dtype == bool:
            return x
        return np.where(gone_B.reshape(-1, *(1,) * (x.ndim - 1)), x.dtype.type(filler), x)

    others = {
        "teacher": {m: fill(x, absent[m]) for m, x in batch["teacher"].items()},
        "text": {name: fill(x, absent["text"]) for name, x in batch["text"].items()},
    }
    embeddings = {m: type(e)(*(fill(x, absent[m]) for x in e)) for m, e in embeddings.items()}
    return embeddings, batch | others


def test_what_is_absent_has_no_say_and_no_gradient(value_and_gradient, make_problem):
    objective, run = value_and_gradient
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    absent = {m: ~here for m, here in batch["present"].items()}
    assert all(gone.any() for gone in absent.values())
    value, terms, _ = run(params, state, embeddings, batch)
    assert value != 0 and all(np.isfinite(term.value_B).all() for term in terms.values())
    for filler in (0.0, 1e3):
        others = filled(embeddings, batch, absent, filler)
        other, _, (of_params, of_embeddings) = run(params, state, *others)
        assert other == value and all(np.isfinite(x).all() for x in floats(of_params))
        for m in embeddings:
            for gradient in floats(of_embeddings[m]):
                assert np.isfinite(gradient).all() and not gradient[absent[m]].any()


def test_a_record_without_one_half_has_no_weight(value_and_gradient, make_problem):
    objective, run = value_and_gradient
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    _, terms, _ = run(params, state, embeddings, batch)
    for name, term in terms.items():
        whole = np.all([batch["present"][m] for m in modalities(name)], axis=0)
        assert term.weight_B.dtype == np.float32 and not np.any(term.weight_B[~whole])
        assert np.any(term.weight_B[whole]) and not np.any(term.value_B[term.weight_B == 0])


@pytest.mark.parametrize("without", [("image",), ("image", "text")])
def test_nothing_present_costs_nothing(value_and_gradient, make_problem, without):
    objective, run = value_and_gradient
    nobody = {m: np.zeros(B, bool) for m in without}
    problem = make_problem(objective, B, D, np.float32, present=nobody)
    value, terms, (of_params, of_embeddings) = run(*problem)
    others = {name for name in terms if not modalities(name) & set(without)}
    assert not any(terms[name].weight_B.any() for name in terms if name not in others)
    assert value == sum(terms[name].mean() for name in others)
    there = {m: x for m, x in of_embeddings.items() if m in without or not others}
    assert not any(x.any() for x in floats((of_params, there)))
    assert all(np.isfinite(x).all() for x in floats(of_embeddings))


def test_what_it_multiplies_similarities_by_is_logged(make_objective, make_problem):
    objective = make_objective(B, D)
    params, state, embeddings, batch = make_problem(objective, B, D, np.float32, seed=3)
    if "log_scale" not in params:
        pytest.skip("its scale is not learned")
    np.testing.assert_allclose(np.exp(params["log_scale"]), objective.init_scale, rtol=1e-6)

    @jax.jit
    def metrics(params):
        return objective(params, state, embeddings, batch, jax.random.key(0)).metrics

    for log_scale in (-0.5, 2.0, 6.0):
        found = metrics({**params, "log_scale": np.float32(log_scale)})
        scale = min(np.exp(log_scale), objective.max_scale or np.inf)
        np.testing.assert_allclose(found["logit_scale"], scale, rtol=1e-6)


def test_no_objective_is_forgotten(all_objectives):
    folder = Path(mmcl.objectives.__file__).parent
    written = {
        file.stem for file in folder.glob("*.py") if "\nclass Objective:" in file.read_text()
    }
    assert all_objectives == written


def test_a_batch_of_one_is_finite(make_objective, make_problem):
    objective = make_objective(1, D)
    everybody = {m: np.ones(1, bool) for m in ("image", "text")}
    params, state, embeddings, batch = make_problem(
        objective, 1, D, np.float32, seed=1, present=everybody
    )

    def loss(embeddings):
        result = objective(params, state, embeddings, batch, jax.random.key(0))
        return sum(term.mean() for term in result.terms.values())

    value, gradient = jax.jit(jax.value_and_grad(loss, allow_int=True))(embeddings)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in floats(gradient))
