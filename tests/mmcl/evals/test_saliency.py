"""Saliency of a split's records: where maps ought to point, and that they beat random ones."""

import functools
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import saliency
from mmcl.evals.embed import embed, make_encoders
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh
from mmcl.models import bag, text
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers


class Corner(nn.Module):
    """Sees the upper left quarter alone."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x = nn.tanh(nn.Conv(4, (2, 2), strides=2, name="conv")(inputs["value"]))
        x = nn.tanh(nn.Conv(4, (1, 1), name="mix")(x))
        seen = x[:, : x.shape[1] // 2, : x.shape[2] // 2]
        return Embedding(nn.Dense(5, name="projection")(seen.reshape(len(x), -1)))


class Start(nn.Module):
    """Sees the first half of a signal."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x = nn.tanh(nn.Conv(4, (2,), strides=2, name="conv")(inputs["value"][..., None]))
        return Embedding(nn.Dense(5, name="projection")(x[:, :4].reshape(len(x), -1)))


class Source:
    label_names: dict[str, list[str]] = {}

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = np.random.default_rng(i)
        pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        mask = np.arange(6) < 3 + i % 4
        ids = np.where(mask, rng.integers(1, 20, size=6), 0).astype(np.int32)
        return {
            "id": f"r{i}", "image": pixels, "signal": rng.normal(size=16).astype(np.float32),
            "flat": pixels[0, 0] / np.float32(255), "word": i, "one": np.float32(i),
            "bag": {"value": ids, "mask": mask}, "said": {"value": ids, "mask": mask},
        }  # fmt: skip


def as_it_is(value: Any, *, rng: Any, train: bool) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": np.asarray(value)}


MODULES: dict[str, nn.Module] = {
    "image": Corner(), "signal": Start(), "bag": bag.Tower(embed_dim=5, buckets=20),
    "said": text.Tower(embed_dim=5, vocab_size=20, width=8, depth=1, heads=2),
}  # fmt: skip
TOWERS = Towers(MODULES)
PIPELINE = Pipeline({name: [as_it_is] for name in (*MODULES, "flat", "word", "one")}, Source(1))


@functools.cache
def params() -> Any:
    record = PIPELINE(Source(1)[0], 0, seed=(0,), train=False)
    batch = {m: {k: v[None] for k, v in record[m].items()} for m in MODULES}
    return jax.jit(TOWERS.init)(jax.random.key(1), batch)


@functools.cache
def encoders(mesh: Mesh) -> Any:
    return make_encoders(TOWERS, mesh)


def setup(
    monkeypatch: pytest.MonkeyPatch, n: int, batch_size: int, mesh: Mesh, modality: str = "image"
) -> tuple[Embedded, Any]:
    source = Source(n)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)

    def encode_batch(modality: str, inputs: Any) -> np.ndarray:
        return np.asarray(encoders(mesh)[modality](params()[modality], inputs))

    embedded = embed(
        encode_batch, source, PIPELINE, split="val", batch_size=4, modalities=[modality]
    )
    z_NxD = embedded.z[modality]
    partner = z_NxD + np.random.default_rng(0).normal(0, 0.4, z_NxD.shape)
    partner = np.float32(partner / np.linalg.norm(partner, axis=1, keepdims=True))
    others = [m for m in ("text", "image", "flat", "word", "one") if m != modality]
    embedded.z.update(dict.fromkeys(others, partner))
    embedded.shown["text"] = embedded.ids  # type: ignore[index]
    model = SimpleNamespace(
        settings=None, pipeline=PIPELINE, batch_size=batch_size, mesh=mesh, prefix=None,
        towers=TOWERS, params=params() | {"flat": {}, "word": {}, "one": {}},
    )  # fmt: skip
    return embedded, model


def explained(
    embedded: Embedded, model: Any, modality: str, layer: Any, steps: int = 32
) -> saliency.Explained:
    record_N = np.arange(len(embedded.ids))
    ((_, found),) = saliency.explained(embedded, model, record_N, modality, "text", layer, steps, 0)
    return found


def test_maps_point_at_what_is_seen(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    found = explained(*setup(monkeypatch, 8, 8, one_device), "image", "conv")
    assert found.maps.keys() >= set(saliency.METHODS)
    seen = np.zeros((8, 8), bool)
    seen[:4, :4] = True
    for of_pixels in ("integrated_gradients", "gradient_x_input"):
        assert not found.maps[of_pixels][:, ~seen].any()
        assert found.maps[of_pixels][:, seen].any(axis=1).all()
    blurred = np.zeros((8, 8), bool)
    blurred[:5, :5] = True  # places are two pixels wide, and are drawn smoothly
    assert not found.maps["norm_grad"][:, ~blurred].any()
    assert found.there.all() and found.there.shape == (8, 8, 8)
    for b in range(8):
        np.testing.assert_array_equal(found.value[b], Source(8)[b]["image"])


def test_of_several_layers_norm_grad_is_combined_and_grad_cam_reads_the_last(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    embedded, model = setup(monkeypatch, 8, 8, one_device)
    conv, mix, both = (
        explained(embedded, model, "image", layer).maps
        for layer in ("conv", "mix", ["conv", "mix"])
    )
    expected = np.sqrt(conv["norm_grad"] * mix["norm_grad"])
    np.testing.assert_allclose(both["norm_grad"], expected, atol=1e-5)
    np.testing.assert_allclose(both["grad_cam"], mix["grad_cam"], atol=1e-6)
    assert np.abs(mix["grad_cam"] - conv["grad_cam"]).max() > 1e-4


def test_signals(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, 6, 6, one_device, "signal")
    found = explained(embedded, model, "signal", None)
    assert {of.shape for of in found.maps.values()} == {(6, 16)}
    assert not found.maps["integrated_gradients"][:, 8:].any()
    assert found.maps["integrated_gradients"][:, :8].all()
    assert not found.maps["norm_grad"][:, 9:].any() and found.maps["norm_grad"][:, :8].any()
    figures = numbers(saliency.evaluate(embedded, model, modality="signal"))
    assert figures["saliency_signal/completeness_error"] < 0.01


@pytest.mark.parametrize("modality", ["bag", "said"])
def test_tokens(monkeypatch: pytest.MonkeyPatch, one_device: Mesh, modality: str) -> None:
    embedded, model = setup(monkeypatch, 8, 8, one_device, modality)
    found = explained(embedded, model, modality, None)
    mask = np.stack([Source(8)[i][modality]["mask"] for i in range(8)])
    np.testing.assert_array_equal(found.there, mask)
    grids = {"grad_cam", "norm_grad", "random_grid"} if modality == "said" else set()
    pixels = {"integrated_gradients", "gradient_x_input", "random"}
    assert found.maps.keys() == pixels | grids
    for map_of in found.maps.values():
        assert map_of.shape == (8, 6) and not map_of[~mask].any()
    for of_tokens in ("integrated_gradients", "gradient_x_input"):
        assert found.maps[of_tokens][mask].all()
    figures = numbers(saliency.evaluate(embedded, model, modality=modality))
    task = f"saliency_{modality}"
    assert figures[f"{task}/completeness_error"] < 0.01
    better = figures[f"{task}/random/deletion"] - figures[f"{task}/integrated_gradients/deletion"]
    assert better > 0.02


def test_a_bags_gradient_times_input_is_in_closed_form(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh
) -> None:
    """d cos(z, p) / dz · e / n, with z the mean of the vectors e of n tokens."""
    embedded, model = setup(monkeypatch, 5, 5, one_device, "bag")
    found = explained(embedded, model, "bag", None, 2).maps["gradient_x_input"]
    table = np.asarray(params()["bag"]["embedding"], np.float64)
    for b in range(5):
        record = Source(5)[b]["bag"]
        ids = record["value"][record["mask"]]
        z, p = table[ids].mean(axis=0), embedded.z["text"][b].astype(np.float64)
        length = np.linalg.norm(z)
        slope = (p - (z @ p) * z / length**2) / length
        own = {i: slope @ table[i] / len(ids) for i in ids}
        np.testing.assert_allclose(found[b][: len(ids)], [own[i] for i in ids], atol=1e-5)


def test_faithful_maps_beat_random_ones(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, 8, 8, one_device)
    found = numbers(saliency.evaluate(embedded, model, layer="conv"))
    for method, random in (("integrated_gradients", "random"), ("norm_grad", "random_grid")):
        for figure, sign in (("deletion", -1), ("insertion", 1)):
            better = found[f"saliency/{method}/{figure}"] - found[f"saliency/{random}/{figure}"]
            assert sign * better > 0.02
    assert found["saliency/completeness_error"] < 0.01
    assert found["saliency/count"] == 8


@pytest.mark.parametrize("modality", ["image", "said"])
def test_devices_and_batches_change_nothing(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, modality: str
) -> None:
    expected = None
    sizes = [(one_device, 8), (data_mesh(), 16), *([(one_device, 5)] * (modality == "image"))]
    for mesh, batch_size in sizes:
        embedded, model = setup(monkeypatch, 12, batch_size, mesh, modality)
        options: Any = dict(modality=modality, records=8, steps=3)
        found = numbers(saliency.evaluate(embedded, model, **options))
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
        options: Any = dict(modality="text", to="image", records=5)
        found = numbers(saliency.evaluate(embedded, model, **options))
    methods = [*saliency.METHODS, "random", "random_grid"]
    assert found.keys() == {
        *(f"saliency_text/{one}/{way}" for one in methods for way in ("deletion", "insertion")),
        *(f"saliency_text/{one}" for one in ("score", "baseline_score", "completeness_error")),
        "saliency_text/count",
    }
    record = saliency.spaced(np.arange(len(embedded.ids)), 5)
    cosines = np.sum(embedded.z["image"][record] * embedded.z["text"][record], axis=1)
    assert found["saliency_text/score"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert found["saliency_text/completeness_error"] < 0.02
    assert found["saliency_text/count"] == 5


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(records=0), "records=0, steps=32: both should be"),
        (dict(steps=0), "records=64, steps=0"),
        (dict(to="image"), "no partner of itself"),
        (dict(to="sound"), "no modality 'sound' in 'val'"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(modality="one"), "'one' is one number a record"),
        (dict(modality="word"), "'word' reads int64, which has no gradient"),
        (dict(layer="cnv"), "no grid of parts at 'cnv'. Did you mean 'conv'"),
        (dict(layer=["conv", "cnv"]), "no grid of parts at 'cnv'"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, one_device: Mesh, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, 4, 4, one_device)
    embedded.shown.update(word=embedded.ids, one=embedded.ids)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=message):
        saliency.evaluate(embedded, model, **options)


def test_a_prefix_is_explained_alone(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    embedded, model = setup(monkeypatch, 4, 4, one_device, "bag")
    short = {m: z[:, :2] / np.linalg.norm(z[:, :2], axis=1)[:, None] for m, z in embedded.z.items()}
    embedded.z.update(short)
    model.prefix = 2
    found = numbers(saliency.evaluate(embedded, model, modality="bag", steps=2))
    cosines = np.sum(short["bag"] * short["text"], axis=1)
    assert found["saliency_bag/score"] == pytest.approx(cosines.mean(), abs=1e-5)
