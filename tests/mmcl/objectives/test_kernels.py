"""Every objective computed by the kernels, interpreted on the CPU, as by plain XLA and densely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.pair_reduce import choices
from pallas_kernels.pair_reduce.interpreted import interpreted

B, D = 50, 24


def answers(objective, problems, impl, blocks=None):
    """Of each of problems alike: loss, values and gradients of the floats, computed by `impl`, in
    tiles of that size.
    """
    problems = list(problems)

    def loss(params, embeddings, state, batch):
        result = objective(params, state, embeddings, batch, jax.random.key(0))
        values = [term.value_B for term in result.terms.values()]
        return sum(term.mean() for term in result.terms.values()), values

    def step(params, state, embeddings, batch):
        value_and_grad = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)
        return value_and_grad(params, embeddings, state, batch)

    saved = {}
    if blocks is not None:
        with choices(impl=impl) as whole:
            jax.eval_shape(lambda *one: step(*one), *problems[0])  # one trace serves once
        saved = {call: {**choice, "blocks": blocks} for call, choice in whole.items()}
    run = jax.jit(step)
    with choices(saved, impl) as made, interpreted():
        found = [run(*one) for one in problems]
    assert {choice["impl"] for choice in made.values()} == {impl}
    return [
        [x for x in jax.tree.leaves(jax.device_get(one)) if jnp.issubdtype(x.dtype, jnp.floating)]
        for one in found
    ]


def errors(got, want):
    return [
        np.abs(np.asarray(a, np.float64) - b).max() / max(np.abs(b).max(), 1e-9)
        for a, b in zip(got, want, strict=True)
    ]


@pytest.mark.parametrize("impl", ["pallas_tpu", pytest.param("pallas_gpu", marks=pytest.mark.long)])
def test_an_odd_batch_in_float64_as_by_xla_in_small_tiles(make_objective, make_problem, impl):
    objective = make_objective(B, D)
    with jax.enable_x64(True):
        problems = [make_problem(objective, B, D, np.float64)]
        (got,), (want,) = (
            answers(objective, problems, by, blocks)
            for by, blocks in ((impl, None), ("xla", (16, 24)))
        )
    assert max(errors(got, want)) <= 1e-12


@pytest.mark.long
@pytest.mark.parametrize(
    "impl, narrow",
    [("pallas_tpu", np.float32), ("pallas_tpu", jnp.bfloat16), ("pallas_gpu", jnp.bfloat16)],
)
def test_errors_are_those_of_rounding(make_objective, make_problem, impl, narrow):
    """Against the dense grid in float64, of the same numbers: of several draws the root mean
    square, since a single sum (a temperature's gradient) may be right to the last bit by chance.
    """
    objective = make_objective(B, D)

    def problems(dtype):
        """The same narrow numbers, held as `dtype`; labels and masks as they are."""

        def held(x):
            x = np.asarray(x)
            return x.astype(narrow).astype(dtype) if x.dtype.kind == "f" else x

        drawn = [make_problem(objective, B, D, np.float32, seed) for seed in range(4)]
        wide = np.float64 if dtype == np.float64 else np.float32
        for one in drawn:
            params = jax.tree.map(lambda x: np.asarray(x, wide), one.params)
            yield jax.tree.map(held, one)._replace(params=params)

    with jax.enable_x64(True):
        wanted = answers(objective, problems(np.float64), "reference")

    def typical(found):
        of_draws = [errors(got, want) for got, want in zip(found, wanted, strict=True)]
        return np.sqrt(np.mean(np.square(of_draws), axis=0))

    found = answers(objective, problems(narrow), impl)
    dense = answers(objective, problems(narrow), "reference")
    for a, error, of_dense in zip(found[0], typical(found), typical(dense), strict=True):
        half = 0 if a.dtype == np.float32 else float(jnp.finfo(narrow).eps)
        assert error <= max(min(2e-5, 4 * of_dense), half, 1e-6)
