"""Layers inside towers, beside what flax captures and the gradients of their own parameters."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import layers, token_vectors
from mmcl.evals.input_scores import cosine, encoder
from mmcl.models import edge_convnet, mlp, text, vit

PIXELS = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
PARTNER = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
SMALL: dict[str, Any] = dict(embed_dim=6, width=8, depth=1, heads=2, patch=4)
TOWERS: dict[str, nn.Module] = {
    "vit mean": vit.Tower(**SMALL),
    "vit cls": vit.Tower(**SMALL, pool="cls", pre_norm=True),
    "vit map": vit.Tower(**SMALL, pool="map"),
    "convnet": edge_convnet.Tower(embed_dim=6, widths=(8, 16)),
}


@functools.cache
def params(name: str) -> Any:
    tower = TOWERS[name]
    return jax.jit(lambda: tower.init(jax.random.key(0), {"value": PIXELS}, train=False))()[
        "params"
    ]


def score(name: str, params: Any, tower: nn.Module | None = None) -> Any:
    tower = TOWERS[name] if tower is None else tower
    return cosine(encoder(tower, jnp.dtype("float32"), params, {}), PARTNER)


@pytest.mark.parametrize(
    "output, value, axes, grid",
    [
        ((2, 4, 8, 16), (2, 32, 64, 3), 2, (4, 8)),
        ((2, 16, 8), (2, 32, 32, 3), 2, (4, 4)),
        ((2, 17, 8), (2, 32, 32, 3), 2, (4, 4)),
        ((2, 8, 5), (2, 16, 32, 3), 2, (2, 4)),
        ((2, 9, 5), (2, 16, 32, 3), 2, (2, 4)),
        ((2, 8, 5), (2, 32, 16, 3), 2, (4, 2)),
        ((2, 18, 8), (2, 32, 32, 3), 2, None),
        ((2, 1, 8), (2, 32, 32, 3), 2, None),
        ((2, 2, 8), (2, 32, 32, 3), 2, None),
        ((2, 1, 1, 8), (2, 32, 32, 3), 2, None),
        ((2, 8), (2, 32, 32, 3), 2, None),
        ((), (2, 32, 32, 3), 2, None),
        ((6, 4, 8), (2, 3, 12), 2, None),  # of views, three a record
        ((2, 2, 4, 4, 8), (2, 4, 8, 8, 3), 3, (2, 4, 4)),
        ((2, 16, 8), (2, 4, 16, 16, 3), 3, (1, 4, 4)),
        ((2, 12, 8), (2, 12), 1, (12,)),  # signals, tokens
        ((2, 13, 8), (2, 12, 8), 1, (12,)),
        ((2, 7, 8), (2, 12), 1, (6,)),
        ((2, 8, 8), (2, 12), 1, None),
        ((2, 2, 8), (2, 5), 1, None),
        ((2, 2, 6, 8), (2, 12), 1, None),
        ((2, 100, 8), (2, 100, 64), 2, (100, 1)),  # frames
        ((2, 51, 8), (2, 100, 64), 2, (50, 1)),
        ((2, 8, 8), (2, 64, 32), 2, (4, 2)),
        ((2, 30, 8), (2, 100, 64), 2, None),
    ],
)
def test_grids(output: Any, value: Any, axes: int, grid: Any) -> None:
    assert layers.grid_shape(output, value, axes) == grid


@pytest.mark.parametrize(
    "name, layer",
    [
        ("vit mean", "encoder/blocks_0/norm_1"),
        ("vit cls", "encoder/blocks_0/norm_1"),
        ("vit map", "encoder/blocks_0/norm_1"),
        ("convnet", "norm"),
    ],
)
def test_defaults(name: str, layer: str) -> None:
    its = score(name, params(name))
    for _ in range(2):  # the layers of a score are seen as often as one looks
        assert layers.default(its, PIXELS, 2) == layer


@pytest.mark.parametrize(
    "name, those",
    [
        ("vit mean", ["patches", "encoder/blocks_0/norm_1", "encoder/norm"]),
        ("vit cls", ["patches"]),
        ("vit map", ["encoder/norm"]),
        ("convnet", ["down_0", "norm"]),
    ],
)
def test_equal_what_flax_captures_and_the_gradient_of_the_layers_own_bias(
    name: str, those: list[str]
) -> None:
    @jax.jit
    def everything(its: Any) -> Any:
        _, captured = TOWERS[name].apply(
            {"params": its}, {"value": PIXELS}, train=False, capture_intermediates=True
        )
        slope = jax.grad(lambda its: score(name, its)(PIXELS).sum())(its)
        one = score(name, its)
        found = [layers.activation_and_slope(one, PIXELS, 2, layer) for layer in those]
        return captured["intermediates"], slope, found

    captured, of_params, found = everything(params(name))
    for layer, (activation, slope) in zip(those, found):
        assert activation.shape == slope.shape and activation.ndim == 4
        its, own = captured, of_params
        for part in layer.split("/"):
            its, own = its[part], own[part]
        its = np.asarray(its["__call__"][0]).reshape(2, -1)
        np.testing.assert_allclose(activation.reshape(2, -1), its, atol=1e-5)
        np.testing.assert_allclose(slope.sum(axis=(0, 1, 2)), own["bias"], atol=1e-5)


def test_the_class_token_is_left_out() -> None:
    its = params("vit cls")
    late = jax.jit(
        lambda x: layers.activation_and_slope(score("vit cls", its), x, 2, "encoder/norm")
    )(PIXELS)
    assert late[0].shape == (2, 4, 4, 8)
    assert not np.asarray(late[1]).any()  # it alone reaches the score from there on


def test_what_is_computed_again_or_in_a_loop_is_seen_all_the_same() -> None:
    tower = vit.Tower(**SMALL, remat="full", scan=True)
    assert layers.plain(tower) == vit.Tower(**SMALL)
    assert layers.plain(edge_convnet.Tower(embed_dim=6)) == edge_convnet.Tower(embed_dim=6)


def test_no_such_layer() -> None:
    with pytest.raises(InputError, match="'encoder/blocks_0/norm_3'. Did you mean 'encoder/blocks"):
        layers.activation_and_slope(
            score("vit mean", params("vit mean")), PIXELS, 2, "encoder/blocks_0/norm_3"
        )


def test_a_tower_without_grids() -> None:
    tower = mlp.Tower(embed_dim=6, width=8)
    flat = PIXELS.reshape(2, -1)
    its = tower.init(jax.random.key(0), {"value": flat}, train=False)["params"]
    of_flat = score("", its, tower)
    assert layers.default(lambda x: of_flat(x.reshape(2, -1)), PIXELS, 2) is None


def test_tokens_of_a_text_have_places() -> None:
    tower = text.Tower(embed_dim=6, vocab_size=9, width=8, depth=2, heads=2)
    inputs = {
        "value": np.array([[1, 2, 3], [4, 5, 0]]),
        "mask": np.array([[1, 1, 1], [1, 1, 0]]) > 0,
    }
    its = tower.init(jax.random.key(0), inputs, train=False)["params"]
    encode, vectors = token_vectors.of_vectors(tower, jnp.dtype("float32"), its, inputs)
    of_vectors = cosine(encode, PARTNER)
    assert layers.default(of_vectors, vectors, 1) == "encoder/blocks_1/norm_1"
    activation, slope = jax.jit(
        lambda v: layers.activation_and_slope(of_vectors, v, 1, "encoder/blocks_1/norm_1")
    )(vectors)
    assert activation.shape == slope.shape == (2, 3, 8)
    assert np.asarray(slope)[inputs["mask"]].any(axis=1).all()
    assert not np.asarray(slope)[~inputs["mask"]].any()
