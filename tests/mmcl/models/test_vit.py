"""The picture tower: which pixels go into which token, and how tokens become an embedding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.models.vit import Tower, chosen_patches, kept_patches

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


SMALL = dict(embed_dim=EMBED, patch=PATCH, width=WIDTH, depth=1, heads=2)
PATCHES = (H // PATCH) * (W // PATCH)


def drawn(batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, H, W, C)).astype("f4")


@pytest.mark.parametrize("pool", ["cls", pytest.param("map", marks=pytest.mark.long)])
def test_kept_patches_are_those_of_the_record_and_the_class_token_stays(pool: str) -> None:
    """What is kept goes through as if the picture had no other patches, in their places."""
    tower = Tower(**SMALL, pool=pool, keep=0.5)
    value, key = drawn(), jax.random.split(jax.random.key(1), 3)
    params = jax.jit(tower.init)(jax.random.key(0), {"value": value})["params"]
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)
    encode = jax.jit(
        lambda v, k: tower.apply({"params": params}, {"value": v, "key": k}, train=True)
    )
    got = encode(value, key)
    first = int(pool == "cls")
    assert got.tokens.shape == (3, first + PATCHES // 2, EMBED)
    index_BxK = np.asarray(chosen_patches(key, PATCHES, PATCHES // 2))
    assert (np.diff(index_BxK, axis=1) > 0).all() and len(np.unique(index_BxK)) > PATCHES // 2
    for b, index in enumerate(index_BxK):
        rows = [value[b, y : y + PATCH, x : x + PATCH] for y in (0, 3) for x in (0, 3, 6)]
        few = np.concatenate([rows[i] for i in index], axis=1)[None]  # a picture of one row
        places = [*range(first), *(first + index)]
        lone = {**params, "positions": params["positions"][np.array(places)]}
        want = Tower(**SMALL, pool=pool).apply({"params": lone}, {"value": few})
        np.testing.assert_allclose(got.z[b], want.z[0], rtol=1e-4, atol=1e-4)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(encode(value[order], key[order]).z, got.z[order], atol=1e-5)
    whole = tower.apply({"params": params}, {"value": value, "key": key})
    assert whole.tokens.shape == (3, first + PATCHES, EMBED)


def test_every_patch_is_kept_as_often() -> None:
    index = chosen_patches(jax.random.split(jax.random.key(0), 4000), 10, 3)
    share = np.bincount(np.asarray(index).ravel(), minlength=10) / 4000
    np.testing.assert_allclose(share, 0.3, atol=0.04)


@pytest.mark.parametrize(
    ("keep", "kept"), [(1.0, 6), (1, 6), (0.5, 3), (0.01, 1), (4, 4), (6.0, 6)]
)
def test_how_many_are_kept(keep: float, kept: int) -> None:
    assert kept_patches(keep, PATCHES) == kept


@pytest.mark.parametrize("keep", [0.0, -0.5, 2.5, 7.0])
def test_what_cannot_be_kept(keep: float) -> None:
    with pytest.raises(InputError, match="share of the 6 patches"):
        kept_patches(keep, PATCHES)


def test_without_keys_nothing_can_be_drawn() -> None:
    inputs = {"value": drawn()}
    all_of_them, half = Tower(**SMALL), Tower(**SMALL, keep=0.5)
    params = jax.eval_shape(half.init, jax.random.key(0), inputs)
    jax.eval_shape(lambda p: all_of_them.apply(p, inputs, train=True), params)
    with pytest.raises(InputError, match="'key'"):
        jax.eval_shape(lambda p: half.apply(p, inputs, train=True), params)


def test_no_projection_between_two_widths() -> None:
    tower = Tower(**SMALL, projection="none")
    with pytest.raises(InputError, match="config.embed_dim to 8"):
        jax.eval_shape(tower.init, jax.random.key(0), {"value": drawn()})
