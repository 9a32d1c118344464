"""The encoder against a transcription in NumPy, loops over examples and heads, in float64."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.transformer import Block, Encoder, masked_mean, positions

B, T, D, HEADS, RATIO = 3, 5, 8, 2, 1.5


def drawn(seed=0):
    return np.random.default_rng(seed).normal(size=(B, T, D)).astype("f4")


MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]], bool)


def shaken(params, seed=1):
    """No bias at zero, no scale at one, so that nothing goes unnoticed."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype("f4"), params)


def literal_norm(p, x):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def literal_dense(p, x):
    return x @ p["kernel"] + p["bias"]


def literal_gelu(x):
    """The tanh approximation (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def literal_attention(p, x_TxD, mask_T):
    query, key, value = np.split(literal_dense(p["qkv"], x_TxD), 3, axis=-1)
    size = D // HEADS
    heads = []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        score = query[:, part] @ key[:, part].T / math.sqrt(size)
        weight = np.exp(score) * mask_T
        heads.append(weight / weight.sum(axis=-1, keepdims=True) @ value[:, part])
    return literal_dense(p["out"], np.concatenate(heads, axis=-1))


def literal_block(p, x_TxD, mask_T):
    x_TxD = x_TxD + literal_attention(p, literal_norm(p["norm_1"], x_TxD), mask_T)
    hidden = literal_gelu(literal_dense(p["up"], literal_norm(p["norm_2"], x_TxD)))
    return x_TxD + literal_dense(p["down"], hidden)


def exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_block(mask):
    x, block = drawn(), Block(HEADS, RATIO)
    params = shaken(jax.jit(block.init)(jax.random.key(0), x, mask)["params"])
    got = jax.jit(block.apply)({"params": params}, x, mask)
    for i in range(B):
        there = np.ones(T, bool) if mask is None else mask[i]
        want = literal_block(exact(params), exact(x[i]), there)
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


def test_encoder_is_its_blocks_and_a_norm():
    x, encoder = drawn(), Encoder(2, HEADS, RATIO)
    params = shaken(jax.jit(encoder.init)(jax.random.key(0), x, MASK)["params"])
    assert set(params) == {"blocks_0", "blocks_1", "norm"}
    got = jax.jit(encoder.apply)({"params": params}, x, MASK)
    p = exact(params)
    for i in range(B):
        want = exact(x[i])
        for block in (p["blocks_0"], p["blocks_1"]):
            want = literal_block(block, want, MASK[i])
        np.testing.assert_allclose(got[i], literal_norm(p["norm"], want), rtol=1e-4, atol=1e-5)


def test_parameters_are_as_many_as_the_formula_says():
    width, depth, ratio = 12, 3, 4
    shapes = jax.eval_shape(
        Encoder(depth, 4, ratio).init, jax.random.key(0), jnp.zeros((1, 2, width))
    )
    attention = width * 3 * width + 3 * width + width * width + width
    mlp = width * ratio * width + ratio * width + ratio * width * width + width
    count = depth * (attention + mlp + 2 * 2 * width) + 2 * width
    assert sum(p.size for p in jax.tree.leaves(shapes)) == count


def test_mean_over_the_tokens_that_are_there():
    x = drawn()
    mask = MASK.copy()
    mask[1] = False
    want = [x[0].mean(axis=0), np.zeros(D), x[2][[1, 3, 4]].mean(axis=0)]
    np.testing.assert_allclose(masked_mean(jnp.asarray(x), mask), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked_mean(jnp.asarray(x), None), x.mean(axis=1), atol=1e-6)


def test_no_token_at_all_is_finite_in_value_and_gradient():
    x, encoder = drawn(), Encoder(1, HEADS, RATIO)
    nothing = np.zeros((B, T), bool)
    params = jax.jit(encoder.init)(jax.random.key(0), x)["params"]

    def pooled(params, x):
        return masked_mean(encoder.apply({"params": params}, x, nothing), nothing)

    z, vjp = jax.vjp(jax.jit(pooled), params, x)
    assert not z.any() and not any(g.any() for g in jax.tree.leaves(vjp(jnp.ones_like(z))))


def test_positions_are_small_and_one_a_place():
    class Positions(nn.Module):
        @nn.compact
        def __call__(self):
            return positions(self, 50, 40)

    params = Positions().init(jax.random.key(0))["params"]["positions"]
    assert params.shape == (50, 40)
    assert 0.005 < params.std() < 0.03


REMATS = ("none", "dots", "full")
LEVERS = [(remat, scan) for remat in REMATS for scan in (False, True)]


def gradient_of(encoder, mask):
    def loss(params, x):
        return jnp.sum(jnp.sin(encoder.apply({"params": params}, x, mask)))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


@pytest.mark.parametrize(("remat", "scan"), LEVERS[1:])
def test_what_saves_memory_changes_no_number(remat, scan):
    """Neither the names of parameters, nor what comes out, nor a gradient."""
    mask = None if (remat, scan) == ("dots", True) else MASK
    with jax.enable_x64(True):
        x = jnp.asarray(drawn(), jnp.float64)
        plain = Encoder(2, HEADS, RATIO)
        params = jax.tree.map(
            lambda p: jnp.asarray(p, jnp.float64),
            shaken(plain.init(jax.random.key(0), x)["params"]),
        )
        other = Encoder(2, HEADS, RATIO, remat=remat, scan=scan)
        made = other.init(jax.random.key(0), x)["params"]
        assert jax.tree.structure(made) == jax.tree.structure(params)
        expected = jax.tree.leaves(gradient_of(plain, mask)(params, x))
        found = jax.tree.leaves(gradient_of(other, mask)(params, x))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


def test_what_is_computed_again_is_not_kept(optimized):
    """Temporaries of the compiled gradient, of blocks whose activations outweigh parameters."""
    x = jax.ShapeDtypeStruct((32, 64, 32), jnp.float32)
    params = jax.eval_shape(Encoder(6, 4).init, jax.random.key(0), x)["params"]

    def lowered(remat, scan):
        return gradient_of(Encoder(6, 4, remat=remat, scan=scan), None).lower(params, x)

    none, dots, full = (
        lowered(remat, True).compile().memory_analysis().temp_size_in_bytes
        for remat in ("none", "dots", "full")
    )
    assert dots < 0.5 * none and full < 0.7 * dots
    # Blocks by themselves: the CPU's compiler undoes it, other devices' do not.
    barriers = {r: lowered(r, False).as_text().count("optimization_barrier") for r in REMATS}
    assert barriers == {"none": 0, "dots": 6, "full": 6}
