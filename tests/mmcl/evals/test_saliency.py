"""Saliency maps against literal loops, and where they ought to point."""

import functools
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import saliency
from mmcl.evals.embed import embed
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.input_scores import cosine, encoder
from mmcl.mesh import data_mesh
from mmcl.models import vit
from mmcl.models.embedding import Embedding, unit
from mmcl.models.towers import Towers

seeds = st.integers(0, 2**31 - 1)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_integrated_gradients_of_squares_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x, b = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(3))
    found = saliency.integrated_gradients(
        lambda value: jnp.sum(w * value**2, axis=-1), jnp.asarray(x), jnp.asarray(b), 3
    )
    np.testing.assert_allclose(found, w * (x**2 - b**2), rtol=1e-4, atol=1e-4)


def test_integrated_gradients_are_complete_of_a_tower() -> None:
    rng = np.random.default_rng(0)
    tower = vit.Tower(embed_dim=6, width=8, depth=1, heads=2, patch=4)
    value = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    params = tower.init(jax.random.key(0), {"value": value}, train=False)["params"]
    partner = unit(rng.normal(size=(3, 6)))
    score = cosine(encoder(tower, jnp.dtype("float32"), params, {}), partner)
    baseline = jnp.full_like(value, 0.1)
    difference = jax.jit(lambda: score(value) - score(baseline))()
    found = jax.jit(lambda: saliency.integrated_gradients(score, value, baseline, 32))()
    assert np.abs(difference).max() > 0.1
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), difference, atol=1e-3)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_maps_of_a_layer_equal_literal_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    activation, slope = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    cam = np.asarray(saliency.grad_cam(jnp.asarray(activation), jnp.asarray(slope)))
    norm = np.asarray(saliency.norm_grad(jnp.asarray(activation), jnp.asarray(slope)))
    for b in range(2):
        weight = [sum(slope[b, h, w, c] for h in range(3) for w in range(4)) / 12 for c in range(5)]
        for h in range(3):
            for w in range(4):
                total = sum(activation[b, h, w, c] * weight[c] for c in range(5))
                assert cam[b, h, w] == pytest.approx(max(total, 0), abs=1e-5)
                lengths = [sum(v * v for v in x[b, h, w]) ** 0.5 for x in (activation, slope)]
                assert norm[b, h, w] == pytest.approx(lengths[0] * lengths[1], rel=1e-4)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=20)
def test_the_most_salient_come_first_and_ties_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    map_BxHxW = rng.integers(3, size=(2, 3, 4)).astype(np.float32)
    chance = rng.random((2, 3, 4)).astype(np.float32)
    found = np.asarray(saliency.ranked(jnp.asarray(map_BxHxW), jnp.asarray(chance)))
    for rank, salient, coin in zip(found, map_BxHxW, chance):
        order = sorted(range(12), key=lambda p: (-salient.flat[p], coin.flat[p]))
        assert [rank.flat[p] for p in order] == list(range(12))


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_deletion_and_insertion_equal_literal_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, w = rng.normal(size=(2, 2, 3, 4, 3)).astype(np.float32)
    baseline = np.full_like(value, 0.25)
    rank = np.stack([rng.permutation(12).reshape(3, 4) for _ in range(2)])

    def score(x: Any) -> Any:
        return jnp.tanh((w * x).sum(axis=(1, 2, 3)))

    found = saliency.deletion_and_insertion(score, *map(jnp.asarray, (value, baseline, rank)))
    for b in range(2):
        for from_, to, area in ((value, baseline, found[0]), (baseline, value, found[1])):
            heights = []
            for part in range(17):
                x = from_[b].copy()
                for h in range(3):
                    for v in range(4):
                        if rank[b, h, v] < 12 * part / 16:
                            x[h, v] = to[b, h, v]
                heights.append(np.tanh((w[b] * x).sum()))
            expected = sum((heights[i] + heights[i + 1]) / 2 for i in range(16)) / 16
            assert area[b] == pytest.approx(expected, abs=1e-4)


class Corner(nn.Module):
    """Sees the upper left quarter alone."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x = nn.Conv(4, (2, 2), strides=2, name="conv")(inputs["value"])
        seen = nn.tanh(x[:, : x.shape[1] // 2, : x.shape[2] // 2])
        return Embedding(nn.Dense(5, name="projection")(seen.reshape(len(x), -1)))


class Source:
    label_names: dict[str, list[str]] = {}

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        pixels = np.random.default_rng(i).integers(256, size=(8, 8, 3), dtype=np.uint8)
        return {"id": f"r{i}", "image": pixels, "flat": pixels[0, 0] / np.float32(255), "word": i}


def as_it_is(value: Any, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.asarray(value)}


PIPELINE = Pipeline({name: [as_it_is] for name in ("image", "flat", "word")}, Source(1))
TOWERS = Towers({"image": Corner(), "flat": Corner(), "word": Corner()})


@functools.cache
def params() -> Any:
    inputs = {"value": np.zeros((1, 8, 8, 3), np.float32)}
    return {"image": Corner().init(jax.random.key(1), inputs, train=False)["params"]}


@jax.jit
def encode(params: Any, value: Any) -> Any:
    return unit(TOWERS.encode(params, "image", {"value": value}, train=False).z)


def encode_batch(modality: str, inputs: Any) -> np.ndarray:
    return np.asarray(encode(params(), inputs["value"]))


def setup(
    monkeypatch: pytest.MonkeyPatch, n: int, batch_size: int, mesh: Mesh
) -> tuple[Embedded, Any]:
    source = Source(n)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    embedded = embed(
        encode_batch, source, PIPELINE, split="val", batch_size=4, modalities=["image"]
    )
    z_NxD = embedded.z["image"]
    partner = np.array(unit(z_NxD + np.random.default_rng(0).normal(0, 0.4, z_NxD.shape)))
    embedded.z.update(dict.fromkeys(("text", "flat", "word"), partner))
    embedded.shown["text"] = embedded.ids  # type: ignore[index]
    model = SimpleNamespace(
        settings=None, pipeline=PIPELINE, batch_size=batch_size, mesh=mesh,
        towers=TOWERS, params=params() | {"flat": {}, "word": {}},
    )  # fmt: skip
    return embedded, model


def test_maps_point_at_what_is_seen(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, 8, 8, one_device)
    ((_, found),) = saliency.explained(
        embedded, model, np.arange(8), "image", "text", "conv", 16, 0
    )
    assert found.maps.keys() >= set(saliency.METHODS)
    seen = np.zeros((8, 8), bool)
    seen[:4, :4] = True
    assert not found.maps["integrated_gradients"][:, ~seen].any()
    assert found.maps["integrated_gradients"][:, seen].any(axis=1).all()
    blurred = np.zeros((8, 8), bool)
    blurred[:5, :5] = True  # places are two pixels wide, and are drawn smoothly
    assert not found.maps["norm_grad"][:, ~blurred].any()
    for b in range(8):
        np.testing.assert_array_equal(
            found.value[b], np.random.default_rng(b).integers(256, size=(8, 8, 3), dtype=np.uint8)
        )


def test_faithful_maps_beat_random_ones(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, 8, 8, one_device)
    found = numbers(saliency.evaluate(embedded, model, layer="conv"))
    for method, random in (("integrated_gradients", "random"), ("norm_grad", "random_grid")):
        for figure, sign in (("deletion", -1), ("insertion", 1)):
            better = found[f"saliency/{method}/{figure}"] - found[f"saliency/{random}/{figure}"]
            assert sign * better > 0.02
    assert found["saliency/completeness_error"] < 0.01
    assert found["saliency/count"] == 8


def test_devices_and_batches_change_nothing(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    expected = None
    for mesh, batch_size in ((one_device, 8), (one_device, 5), (data_mesh(), 16)):
        embedded, model = setup(monkeypatch, 12, batch_size, mesh)
        found = numbers(saliency.evaluate(embedded, model, records=8, steps=3, layer="conv"))
        expected = expected or found
        assert found == pytest.approx(expected, abs=1e-5)


def test_records_are_spaced() -> None:
    assert saliency.spaced(np.arange(10, 20), 4).tolist() == [10, 13, 16, 19]
    assert saliency.spaced(np.arange(3), 64).tolist() == [0, 1, 2]


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    with jax.set_mesh(one_device):
        found = numbers(saliency.evaluate(embedded, model, records=5))
    methods = [*saliency.METHODS, "random", "random_grid"]
    assert found.keys() == {
        *(f"saliency/{method}/{way}" for method in methods for way in ("deletion", "insertion")),
        *(f"saliency/{name}" for name in ("score", "baseline_score", "completeness_error")),
        "saliency/count",
    }
    record = saliency.spaced(np.arange(len(embedded.ids)), 5)
    cosines = np.sum(embedded.z["image"][record] * embedded.z["text"][record], axis=1)
    assert found["saliency/score"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert found["saliency/completeness_error"] < 0.02
    assert found["saliency/count"] == 5


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(records=0), "records=0, steps=32: both should be"),
        (dict(steps=0), "records=64, steps=0"),
        (dict(to="image"), "no partner of itself"),
        (dict(to="sound"), "no modality 'sound' in 'val'"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(modality="flat"), r"'flat' is no pictures \(H, W, C\)"),
        (dict(modality="word"), "'word' reads int64, which has no gradient"),
        (dict(layer="cnv"), "no grid of parts at 'cnv'. Did you mean 'conv'"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, 4, 4, one_device)
    embedded.shown.update(word=embedded.ids, flat=embedded.ids)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=message):
        saliency.evaluate(embedded, model, **options)
