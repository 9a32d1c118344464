"""Every objective: a batch split over eight devices is the batch on one."""

import jax
import numpy as np
import pytest

from mmcl.mesh import data_mesh, replicate, split_batch
from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce, sigmoid

OBJECTIVES = [infonce.Objective(positives="concept"), sigmoid.Objective(positives="concept")]
B, D = 64, 16


def inputs(dtype):
    rng = np.random.default_rng(0)
    z = {m: rng.normal(size=(B, D)).astype(dtype) for m in ("image", "text")}
    present = {m: rng.random(B) < 0.9 for m in z}
    return z, {"concept": rng.integers(0, 40, B).astype(np.int32), "present": present}


def value_and_gradient(objective):
    def loss(params, z, batch):
        embeddings = {m: Embedding(x) for m, x in z.items()}
        term = objective(params, None, embeddings, batch, None).terms["image_text"]
        return term.mean(), term

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def on_one_and_eight(objective, dtype):
    run, (z, batch) = value_and_gradient(objective), inputs(dtype)
    params = jax.tree.map(lambda p: np.asarray(p, dtype), objective.init(jax.random.key(0)))
    one = run(params, z, batch)
    mesh = data_mesh()
    with jax.set_mesh(mesh):
        args = replicate(params, mesh), split_batch(z, mesh), split_batch(batch, mesh)
        assert mesh.size == 8 and "collective-permute" in run.lower(*args).compile().as_text()
        eight = run(*args)
    return jax.device_get((one, eight))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__module__)
def test_float64(objective):
    with jax.enable_x64(True):
        one, eight = on_one_and_eight(objective, np.float64)
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(one)):
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__module__)
def test_float32(objective):
    """Against float64 at most 2e-5, and at most 4 times the error of one device."""
    with jax.enable_x64(True):
        exact, _ = on_one_and_eight(objective, np.float64)
    one, eight = on_one_and_eight(objective, np.float32)
    for a, b, c in zip(*map(jax.tree.leaves, (eight, one, exact))):
        largest = np.abs(c).max()
        error, of_one = np.abs(a - c).max() / largest, np.abs(b - c).max() / largest
        floor = 1e-6 / largest if c.ndim == 0 else 0.0
        assert a.dtype == np.float32 and error <= max(2e-5, floor)
        assert error <= max(4 * of_one, floor)
