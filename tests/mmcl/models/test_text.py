"""The text tower: tokens, positions, and that padding has no say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.models.text import Tower

B, L, WIDTH, EMBED, VOCAB = 3, 6, 8, 5, 11
DEEP = Tower(EMBED, VOCAB, WIDTH, depth=2, heads=2)
apply = jax.jit(lambda params, ids, mask: DEEP.apply({"params": params}, inputs(ids, mask)))


def inputs(ids, mask):
    return {"value": ids, "mask": mask}


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, VOCAB, (B, L)).astype("i4"), rng.random((B, L)) < 0.6


@pytest.fixture(scope="module")
def params():
    return jax.jit(DEEP.init)(jax.random.key(0), inputs(*drawn()))["params"]


def test_words_and_positions_then_norm_then_mean_over_what_is_there():
    (ids, mask), rng = drawn(), np.random.default_rng(1)
    tower = Tower(EMBED, VOCAB, WIDTH, depth=0, heads=1)
    params = jax.jit(tower.init)(jax.random.key(0), inputs(ids, mask))["params"]
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype("f4"), params)
    got = jax.jit(tower.apply)({"params": params}, inputs(ids, mask))

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    norm = p["encoder"]["norm"]
    for b in range(B):
        tokens = []
        for place, word in enumerate(ids[b]):
            token = p["embed"]["embedding"][word] + p["positions"][place]
            token = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
            tokens.append((token * norm["scale"] + norm["bias"]) @ p["projection"]["kernel"])
        np.testing.assert_allclose(got.tokens[b], tokens, rtol=1e-4, atol=1e-4)
        there = [token for token, here in zip(tokens, mask[b]) if here]
        np.testing.assert_allclose(got.z[b], np.mean(there, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got.mask, mask)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 9), st.integers(0, 9), st.lists(st.booleans(), min_size=B * L, max_size=B * L)
)
def test_padding_never_changes_z(params, seed, other_seed, mask):
    mask = np.array(mask).reshape(B, L)
    ids, others = drawn(seed)[0], drawn(other_seed)[0]
    z = apply(params, ids, mask).z
    np.testing.assert_array_equal(apply(params, np.where(mask, ids, others), mask).z, z)
    assert np.isfinite(z).all() and not np.any(z[~mask.any(axis=1)])


def test_every_word_that_is_there_changes_z(params):
    ids, mask = drawn()
    z = apply(params, ids, mask).z
    for b, place in np.argwhere(mask):
        changed = ids.copy()
        changed[b, place] = (ids[b, place] + 1) % VOCAB
        moved = np.abs(apply(params, changed, mask).z - z).max(axis=1) > 1e-4
        np.testing.assert_array_equal(moved, np.arange(B) == b)


def test_parameters_are_as_many_as_the_formula_says():
    tower = Tower(EMBED, VOCAB, WIDTH, depth=2, heads=2, mlp_ratio=4)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), inputs(*map(jnp.asarray, drawn())))
    block = 4 * (WIDTH * WIDTH + WIDTH) + 2 * 4 * WIDTH * WIDTH + 4 * WIDTH + WIDTH + 4 * WIDTH
    count = VOCAB * WIDTH + L * WIDTH + 2 * block + 2 * WIDTH + WIDTH * EMBED
    assert sum(p.size for p in jax.tree.leaves(shapes)) == count


def test_a_causal_text_does_not_see_what_comes_and_ends_with_its_last_token():
    ids, _ = drawn()
    mask = np.arange(L) < np.array([[2], [6], [4]])
    tower = Tower(EMBED, VOCAB, WIDTH, depth=2, heads=2, causal=True, pool="eot", scan=True)
    params = jax.jit(tower.init)(jax.random.key(0), inputs(ids, mask))
    encode = jax.jit(lambda ids, mask: tower.apply(params, inputs(ids, mask)))
    got = encode(ids, mask)
    for b, last in enumerate([1, 5, 3]):
        np.testing.assert_allclose(got.z[b], got.tokens[b, last], atol=1e-6)
    changed = ids.copy()
    changed[:, 3] = (ids[:, 3] + 1) % VOCAB
    moved = np.abs(
        encode(changed, np.ones_like(mask)).tokens - encode(ids, np.ones_like(mask)).tokens
    )
    assert not moved[:, :3].any() and (moved[:, 3:].max(axis=-1) > 1e-5).all()
    assert np.isfinite(encode(ids, np.zeros_like(mask)).z).all()


def test_the_last_place_of_all_sees_padding_only_if_told_to():
    ids, mask = drawn()[0], np.arange(L) < np.array([[2], [6], [4]])
    blank = np.where(mask, ids, (ids + 1) % VOCAB)
    for attend in (False, True):
        tower = Tower(EMBED, VOCAB, WIDTH, depth=1, heads=2, pool="last", attend_padding=attend)
        params = jax.jit(tower.init)(jax.random.key(0), inputs(ids, mask))
        encode = jax.jit(tower.apply)
        z = encode(params, inputs(ids, mask)).z
        other = blank.copy()
        other[:, -1] = ids[:, -1]  # where the text is read off
        moved = np.abs(encode(params, inputs(other, mask)).z - z).max(axis=1) > 1e-6
        np.testing.assert_array_equal(moved, [attend, False, attend])
