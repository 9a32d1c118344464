"""The tower of a vector against its formula in NumPy."""

import jax
import numpy as np

from mmcl.models.mlp import Tower

B, F, WIDTH, EMBED = 5, 6, 16, 7


def test_embedding_is_that_of_the_formula():
    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    rng = np.random.default_rng(0)
    x_BxF = rng.normal(size=(B, F)).astype("f4")
    tower = Tower(EMBED, WIDTH)
    params = tower.init(jax.random.key(0), {"value": x_BxF})["params"]
    params = jax.tree.map(lambda p: p + rng.normal(0, 0.3, p.shape).astype("f4"), params)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    h_BxW = gelu(x_BxF @ p["up"]["kernel"] + p["up"]["bias"])
    got = tower.apply({"params": params}, {"value": x_BxF})
    np.testing.assert_allclose(got.z, h_BxW @ p["projection"]["kernel"], rtol=1e-4, atol=1e-5)
    assert got.tokens is None
    assert sum(p.size for p in jax.tree.leaves(params)) == F * WIDTH + WIDTH + WIDTH * EMBED
