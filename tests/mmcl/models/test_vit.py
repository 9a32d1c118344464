"""The picture tower: which pixels go into which token, and how tokens become an embedding."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl.models.vit import Tower

B, H, W, C, PATCH, WIDTH, EMBED = 2, 6, 9, 2, 3, 8, 5


def test_patches_in_reading_order_then_norm_then_mean():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(B, H, W, C)).astype("f4")
    tower = Tower(EMBED, PATCH, WIDTH, depth=0, heads=1)
    params = jax.jit(tower.init)(jax.random.key(0), {"value": value})["params"]
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype("f4"), params)
    got = jax.jit(tower.apply)({"params": params}, {"value": value})

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for b in range(B):
        tokens = []
        for y in range(0, H, PATCH):
            for x in range(0, W, PATCH):
                patch = value[b, y : y + PATCH, x : x + PATCH].reshape(-1)
                token = patch @ p["patches"]["kernel"] + p["patches"]["bias"]
                token = token + p["positions"][len(tokens)]
                token = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
                norm = p["encoder"]["norm"]
                tokens.append((token * norm["scale"] + norm["bias"]) @ p["projection"]["kernel"])
        np.testing.assert_allclose(got.tokens[b], tokens, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got.z[b], np.mean(tokens, axis=0), rtol=1e-4, atol=1e-4)
    assert got.mask is None


def test_parameters_are_as_many_as_the_formula_says():
    tower = Tower(EMBED, PATCH, WIDTH, depth=2, heads=2, mlp_ratio=4)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), {"value": jnp.zeros((B, H, W, C))})
    stem = PATCH * PATCH * C * WIDTH + WIDTH + (H // PATCH) * (W // PATCH) * WIDTH
    block = 4 * (WIDTH * WIDTH + WIDTH) + 2 * 4 * WIDTH * WIDTH + 4 * WIDTH + WIDTH + 4 * WIDTH
    count = stem + 2 * block + 2 * WIDTH + WIDTH * EMBED
    assert sum(p.size for p in jax.tree.leaves(shapes)) == count
