"""All towers of a model: what they are given, in which precision they compute, what comes out."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models import text, vit
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers

B, VOCAB, EMBED = 4, 300, 6
MODULES = {
    "image": vit.Tower(EMBED, patch=4, width=8, depth=2, heads=2),
    "text": text.Tower(EMBED, VOCAB, width=8, depth=2, heads=2),
}


def batch(seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(1, 6, B)[:, None]
    return {
        "image": {"value": rng.integers(0, 256, (B, 8, 12, 3), dtype=np.uint8)},
        "text": {"value": rng.integers(0, VOCAB, (B, 5), dtype=np.int32), "mask": mask},
    }


@pytest.fixture(scope="module")
def params():
    return jax.jit(Towers(MODULES).init)(jax.random.key(0), batch())


def encoder(modality, dtype="float32"):
    towers = Towers(MODULES, jnp.dtype(dtype))
    return lambda params, inputs: towers.encode(params, modality, inputs, train=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("modality, tokens", [("image", 2 * 3), ("text", 5)])
def test_shapes_and_float32_on_both_ends(params, modality, tokens, dtype):
    out = jax.eval_shape(encoder(modality, dtype), params, batch()[modality])
    assert (out.z.shape, out.z.dtype) == ((B, EMBED), jnp.float32)
    assert (out.tokens.shape, out.tokens.dtype) == ((B, tokens, EMBED), jnp.float32)
    if modality == "text":
        assert (out.mask.shape, out.mask.dtype) == ((B, 5), jnp.bool_)
    fresh = jax.eval_shape(Towers(MODULES, jnp.dtype(dtype)).init, jax.random.key(0), batch())
    assert {p.dtype for p in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("modality", MODULES)
def test_products_are_in_the_given_precision_and_gradients_in_float32(params, modality, dtype):
    encode = encoder(modality, dtype)

    def forward(params):
        return encode(params, batch()[modality]).z.sum()

    def products(function):
        """The dtypes of both sides of every matrix product."""
        text = jax.jit(function).lower(params).as_text()
        sides = re.findall(r"stablehlo.dot_general .*: \((.*)\) ->", text)
        return [tuple(re.findall(r"x([a-z]+\d+)>", pair)) for pair in sides]

    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    there, back = products(forward), products(jax.grad(forward))
    blocks, stem = 2 * 6 + 1, {"image": 1, "text": 0}[modality]
    assert len(there) >= blocks + stem and set(there) == {(short, short)}
    # Backward, JAX keeps the cotangent of attention scores in float32: two products a block.
    wide = [pair for pair in back if pair != (short, short)]
    assert len(back) >= 2 * len(there) and len(wide) <= 2 * 2
    gradients = jax.eval_shape(jax.grad(forward), params)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(gradients)} == {"float32"}


@pytest.mark.parametrize("modality", MODULES)
def test_bfloat16_is_near_float32(params, modality):
    inputs = batch()[modality]
    full = jax.jit(encoder(modality))(params, inputs).z
    half = jax.jit(encoder(modality, "bfloat16"))(params, inputs).z
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("modality", MODULES)
def test_an_example_does_not_depend_on_the_others_nor_on_its_place(params, modality):
    encode = jax.jit(encoder(modality))
    inputs, others = batch(0)[modality], batch(1)[modality]
    z = encode(params, inputs).z
    order = np.array([2, 0, 3, 1])
    moved = encode(params, jax.tree.map(lambda x: x[order], inputs)).z
    np.testing.assert_allclose(moved, z[order], rtol=1e-5, atol=1e-6)
    mixed = jax.tree.map(lambda x, y: np.concatenate([x[:2], y[2:]]), inputs, others)
    mixed_z = encode(params, mixed).z
    np.testing.assert_allclose(mixed_z[:2], z[:2], rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(mixed_z[2:] - z[2:]).max(axis=1) > 1e-3)


class Shown(nn.Module):
    """Returns what it is given."""

    @nn.compact
    def __call__(self, inputs, *, train):
        self.param("unused", nn.initializers.zeros, ())
        return Embedding(inputs["value"])


def test_pixels_go_in_as_floats_from_minus_one_to_one():
    towers = Towers({"image": Shown()})
    inputs = {"value": np.uint8([[0, 51, 255]])}
    params = towers.init(jax.random.key(0), {"image": inputs})
    z = towers.encode(params, "image", inputs, train=True).z
    np.testing.assert_allclose(z, [[-1, -0.6, 1]], atol=1e-6)


@pytest.mark.parametrize(
    "given, taken",
    [("uint8", "bfloat16"), ("float32", "bfloat16"), ("int32", "int32"), ("bool", "bool")],
)
def test_floats_are_narrowed_and_nothing_else(given, taken):
    seen = []

    class Recorder(nn.Module):
        @nn.compact
        def __call__(self, inputs, *, train):
            scale = self.param("scale", nn.initializers.normal(), (3,))
            seen.append((str(inputs["value"].dtype), str(scale.dtype), train))
            return Embedding(scale)

    towers = Towers({"any": Recorder()}, jnp.dtype("bfloat16"))
    inputs = {"value": np.ones((2, 3), given)}
    params = towers.init(jax.random.key(0), {"any": inputs})
    assert params["any"]["scale"].dtype == jnp.float32
    seen.clear()
    for train in (True, False):
        z = towers.encode(params, "any", inputs, train=train).z
        assert z.dtype == jnp.float32
        np.testing.assert_array_equal(z, params["any"]["scale"].astype("bfloat16"))
    assert seen == [(taken, "bfloat16", True), (taken, "bfloat16", False)]


def test_every_tower_starts_from_its_own_numbers_and_the_same_ones_each_time():
    both = Towers({"a": MODULES["text"], "b": MODULES["text"]})
    inputs = {"a": batch()["text"], "b": batch()["text"]}
    init = jax.jit(both.init)
    first, second = init(jax.random.key(0), inputs), init(jax.random.key(0), inputs)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    for a, b in zip(jax.tree.leaves(first["a"]), jax.tree.leaves(first["b"])):
        assert a.std() == 0 or np.any(a != b)
    assert {p.shape for p in jax.tree.leaves(first["a"])} == {
        p.shape for p in jax.tree.leaves(first["b"])
    }


def views(counts=(2, 1, 3, 2), seed=0):
    """Token ids of up to three texts a record, and which are there."""
    rng = np.random.default_rng(seed)
    present = np.arange(3) < np.array(counts)[:, None]
    value = rng.integers(0, VOCAB, (B, 3, 5), dtype=np.int32)
    mask = np.arange(5) < rng.integers(1, 6, (B, 3, 1))
    return {"value": value, "mask": mask, "present": present}


def test_views_are_encoded_one_by_one_and_averaged_where_they_are_there(params):
    encode, inputs = encoder("text"), views()
    out = encode(params, inputs)
    assert out.views.shape == (B, 3, EMBED) and out.tokens is None
    alone = [
        encode(params, {name: inputs[name][:, k] for name in ("value", "mask")}).z for k in range(3)
    ]
    np.testing.assert_allclose(out.views, np.stack(alone, axis=1), rtol=1e-5, atol=1e-6)
    for z, views_KxD, there in zip(out.z, out.views, inputs["present"]):
        unit = [v / np.linalg.norm(v) for v in np.float64(views_KxD[there])]
        np.testing.assert_allclose(z, np.mean(unit, axis=0), rtol=1e-4, atol=1e-5)


def test_parameters_do_not_hang_on_how_many_views_there_are(params):
    fresh = jax.jit(Towers(MODULES).init)(jax.random.key(0), {**batch(), "text": views()})
    jax.tree.map(np.testing.assert_array_equal, fresh, params)


def test_every_view_has_a_key_of_its_own():
    class Keys(nn.Module):
        @nn.compact
        def __call__(self, inputs, *, train):
            self.param("unused", nn.initializers.zeros, ())
            return Embedding(jax.vmap(lambda key: jax.random.normal(key, (2,)))(inputs["key"]))

    towers = Towers({"text": Keys()})
    keys_B = jax.random.split(jax.random.key(1), B)
    inputs = {**views(), "key": keys_B}
    drawn = towers.encode({"text": {"unused": jnp.float32(0)}}, "text", inputs, train=True).views
    assert len(np.unique(np.asarray(drawn)[..., 0])) == B * 3
    moved = {name: x[::-1] for name, x in inputs.items()}
    again = towers.encode({"text": {"unused": jnp.float32(0)}}, "text", moved, train=True).views
    np.testing.assert_array_equal(again, drawn[::-1])
