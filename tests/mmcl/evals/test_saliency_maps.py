"""The methods of saliency against closed forms and literal loops."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.evals import saliency_maps
from mmcl.evals.input_scores import cosine, encoder
from mmcl.models import vit
from mmcl.models.embedding import unit

seeds = st.integers(0, 2**31 - 1)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_gradients_of_squares_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x, b = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(3))

    def score(value: jax.Array) -> jax.Array:
        return jnp.sum(w * value**2, axis=-1)

    found = saliency_maps.integrated_gradients(score, jnp.asarray(x), jnp.asarray(b), 3)
    np.testing.assert_allclose(found, w * (x**2 - b**2), rtol=1e-4, atol=1e-4)
    found = saliency_maps.gradient_x_input(score, jnp.asarray(x))
    np.testing.assert_allclose(found, 2 * w * x**2, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_are_complete_of_a_tower() -> None:
    rng = np.random.default_rng(0)
    tower = vit.Tower(embed_dim=6, width=8, depth=1, heads=2, patch=4)
    value = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    params = tower.init(jax.random.key(0), {"value": value}, train=False)["params"]
    partner = unit(rng.normal(size=(3, 6)))
    score = cosine(encoder(tower, jnp.dtype("float32"), params, {}), partner)
    baseline = jnp.full_like(value, 0.1)
    difference = jax.jit(lambda: score(value) - score(baseline))()
    found = jax.jit(lambda: saliency_maps.integrated_gradients(score, value, baseline, 32))()
    assert np.abs(difference).max() > 0.1
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), difference, atol=1e-3)


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 2)])
def test_maps_of_a_layer_equal_literal_loops(grid: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(grid))
    activation, slope = rng.normal(size=(2, 2, *grid, 5)).astype(np.float32)
    cam = np.asarray(saliency_maps.grad_cam(jnp.asarray(activation), jnp.asarray(slope)))
    norm = np.asarray(saliency_maps.norm_grad(jnp.asarray(activation), jnp.asarray(slope)))
    places = list(itertools.product(*map(range, grid)))
    for b in range(2):
        weight = [sum(slope[b][u][c] for u in places) / len(places) for c in range(5)]
        for u in places:
            total = sum(activation[b][u][c] * weight[c] for c in range(5))
            assert cam[b][u] == pytest.approx(max(total, 0), abs=1e-5)
            lengths = [sum(v * v for v in x[b][u]) ** 0.5 for x in (activation, slope)]
            assert norm[b][u] == pytest.approx(lengths[0] * lengths[1], rel=1e-4)


def test_layers_are_combined_by_the_geometric_mean() -> None:
    maps = np.random.default_rng(0).random((3, 2, 4, 5)).astype(np.float32) * 7
    found = np.asarray(saliency_maps.combined(list(jnp.asarray(maps))))
    for b in range(2):
        low = [min(one[b].flat) for one in maps]
        high = [max(one[b].flat) for one in maps]
        for u in range(20):
            scaled = [(maps[k, b].flat[u] - low[k]) / (high[k] - low[k]) for k in range(3)]
            assert found[b].flat[u] == pytest.approx(math.prod(scaled) ** (1 / 3), abs=1e-5)
    alone = np.asarray(saliency_maps.combined([jnp.asarray(maps[0])]))
    order = np.argsort(maps[0].reshape(2, -1), axis=1)
    np.testing.assert_array_equal(np.argsort(alone.reshape(2, -1), axis=1), order)
    assert not np.asarray(saliency_maps.combined([jnp.ones((1, 3))])).any()  # and no NaN


def test_maps_are_resized_linearly() -> None:
    line = np.asarray(saliency_maps.resized(jnp.array([[0.0, 1.0]]), (4,)))
    np.testing.assert_allclose(line, [[0, 0.25, 0.75, 1]], atol=1e-6)
    frames = np.asarray(saliency_maps.resized(jnp.array([[[0.0], [1.0]]]), (4, 3)))
    np.testing.assert_allclose(frames, np.repeat(line[..., None], 3, axis=2), atol=1e-6)


def test_random_maps_hang_on_seed_record_and_which() -> None:
    index = jnp.array([3, 1, 3])
    one = saliency_maps.random(index, 0, 0, (2, 5))
    np.testing.assert_array_equal(one[0], one[2])
    others = [saliency_maps.random(index, *key, (2, 5)) for key in ((1, 0), (0, 1))]
    for other in [one[::-1], *others]:
        assert float(jnp.abs(one[1] - other[0]).max()) > 0.1
    assert float(jnp.abs(one - others[0]).max()) > 0.1 < float(jnp.abs(one - others[1]).max())
