"""Every objective: a batch split over eight devices is the batch on one."""

import jax
import numpy as np
import pytest

from mmcl.mesh import data_mesh, replicate, split_batch

B, D = 64, 16


def value_and_gradient(objective):
    def loss(params, embeddings, state, batch):
        result = objective(params, state, embeddings, batch, jax.random.key(0))
        return sum(term.mean() for term in result.terms.values()), (result.terms, result.state)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True))


def on_one_and_eight(objective, problem):
    run, (params, state, embeddings, batch) = value_and_gradient(objective), problem
    one = run(params, embeddings, state, batch)
    mesh = data_mesh()
    with jax.set_mesh(mesh):
        params, state = replicate(params, mesh), replicate(state, mesh)
        args = params, split_batch(embeddings, mesh), state, split_batch(batch, mesh)
        program = run.lower(*args).compile()
        assert mesh.size == 8 and "collective-permute" in program.as_text()
        eight = program(*args)
    leaves = [jax.tree.leaves(jax.device_get(x)) for x in (one, eight)]
    return [[x for x in tree if x.dtype != jax.dtypes.float0] for tree in leaves]


@pytest.mark.long
def test_eight_devices_are_one(make_objective, make_problem):
    """In float64 to 1e-12; in float32 against that at most 2e-5, and 4 times one device's error."""
    objective = make_objective(B, D)
    with jax.enable_x64(True):
        exact, eight = on_one_and_eight(objective, make_problem(objective, B, D, np.float64))
    for a, b in zip(eight, exact, strict=True):
        assert np.abs(1.0 * a - b).max() <= 1e-12 * np.abs(b).max()
    one, eight = on_one_and_eight(objective, make_problem(objective, B, D, np.float32))
    for a, b, c in zip(eight, one, exact, strict=True):
        if c.dtype.kind != "f":
            np.testing.assert_array_equal(a, c)
            continue
        largest = np.abs(c).max() or 1.0
        error, of_one = np.abs(a - c).max() / largest, np.abs(b - c).max() / largest
        floor = 1e-6 / largest if c.ndim == 0 else 0.0
        assert a.dtype == np.float32 and error <= max(2e-5, floor)
        assert error <= max(4 * of_one, floor)
