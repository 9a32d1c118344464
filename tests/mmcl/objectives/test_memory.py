"""No objective ever holds the grid of pairs: nothing in its program has B·B numbers."""

import math
import re

import jax
import numpy as np

D = 8
SMALL = 3001  # a size that is no other dimension


def compiled(objective, problem):
    """Value and gradients of the objective at these sizes, compiled for one device."""

    def loss(params, embeddings, state, batch):
        result = objective(params, state, embeddings, batch, jax.random.key(0))
        return sum(term.mean() for term in result.terms.values()), result

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True))
    params, state, embeddings, batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), problem
    )
    return run.lower(params, embeddings, state, batch).compile()


def sizes(hlo):
    """The number of elements of every array in a program."""
    return [math.prod(map(int, shape.split(","))) for shape in re.findall(r"\w\[([\d,]+)\]", hlo)]


def test_no_buffer_of_all_pairs(make_objective, make_problem):
    temp = []
    for B in (SMALL, 2 * SMALL):
        objective = make_objective(B, D)
        program = compiled(objective, make_problem(objective, B, D, np.float32, fresh=True))
        found = sizes(program.as_text())
        assert max(found) >= B * D, "the shapes were not read"
        assert max(found) < B * B / 4
        temp.append(program.memory_analysis().temp_size_in_bytes)
    assert temp[1] <= 2.2 * temp[0]
