"""Corrupted pictures, and what a model makes of them."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from scipy import ndimage

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import corruptions, retrieval, zeroshot
from mmcl.evals.corruptions import CORRUPTIONS, corrupt
from mmcl.evals.embed import embed
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, number, numbers
from mmcl.mesh import data_mesh


def smooth(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(height, width, 3))
    x = ndimage.gaussian_filter(x, (3, 3, 0), mode="wrap")
    return np.uint8(np.clip(127.5 + 60 * x / x.std(), 0, 255))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("name", CORRUPTIONS)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (7, 16), (32, 32)]))
@hypothesis.settings(max_examples=20)
def test_a_picture_stays_one(name: str, seed: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    before = pixels.copy()
    for severity in range(1, 6):
        found = corrupt(pixels, name, severity, 3, seed % 5)
        assert found.dtype == np.uint8 and found.shape == pixels.shape
        np.testing.assert_array_equal(found, corrupt(pixels, name, severity, 3, seed % 5))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_severer_the_farther_away(name: str) -> None:
    away = np.mean(
        [
            [apart(corrupt(smooth(i), name, s, i, 0), smooth(i)) for s in range(1, 6)]
            for i in range(8)
        ],
        axis=0,
    )
    assert (np.diff(away) > 0).all() and away[0] > 0


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_noise_and_occlusion_hang_on_seed_and_record(name: str) -> None:
    seen = [corrupt(smooth(0), name, 3, *key) for key in ((1, 0), (2, 0), (1, 1), (1, 0))]
    np.testing.assert_array_equal(seen[0], seen[3])
    random = name in ("noise", "occlusion")
    assert (seen[0] != seen[1]).any() == (seen[0] != seen[2]).any() == random


def test_known_values() -> None:
    grey = np.full((224, 224, 3), 100, np.uint8)
    found = corrupt(grey, "noise", 1, 0, 0) - 100.0
    assert abs(found.mean()) < 0.3 and found.std() == pytest.approx(0.08 * 255, rel=0.01)
    assert (corrupt(grey, "brightness", 2, 0, 0) == 151).all()
    assert (corrupt(grey + np.uint8(100), "brightness", 5, 0, 0) == 255).all()
    for still in ("blur", "contrast", "pixelate", "jpeg"):
        assert apart(corrupt(grey, still, 5, 0, 0), grey) <= 1
    halves = grey.copy()
    halves[:112] = 200
    low, high = np.unique(corrupt(halves, "contrast", 3, 0, 0))
    assert (low, high) == (140, 160)
    for severity, share in enumerate((0.05, 0.1, 0.2, 0.3, 0.4), 1):
        hidden = (corrupt(grey, "occlusion", severity, 5, 0) == 128).all(axis=-1)
        assert hidden.mean() == pytest.approx(share, rel=0.02)
        rows, columns = np.nonzero(hidden)
        assert np.ptp(rows) == np.ptp(columns) == round(224 * share**0.5) - 1
    blocks = np.kron(smooth(0, 16, 16), np.ones((2, 2, 1), np.uint8))
    np.testing.assert_array_equal(corrupt(blocks, "pixelate", 2, 0, 0), blocks)  # to a half, back


def test_blur_is_gaussian() -> None:
    picture = smooth(1, 224, 224)
    for severity, radius in enumerate((3, 4, 6, 8, 10), 1):
        found = corrupt(picture, "blur", severity, 0, 0)[40:-40, 40:-40]
        expected = ndimage.gaussian_filter(picture.astype(float), (radius, radius, 0))
        assert apart(found, expected[40:-40, 40:-40]) < 2


def test_occlusion_reaches_every_pixel() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    hidden = [(corrupt(white, "occlusion", 1, i, 0) == 128)[..., 0] for i in range(600)]
    assert (np.mean(hidden, axis=0) > 0).all()


class Source:
    label_names = {"kind": ["dark_one", "light"]}

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"id": f"r{i}", "image": smooth(i, 8, 8), "text": f"w{i}", "kind": i % 2}


def picture(value: Any, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": value}


def word(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.frombuffer(value.ljust(9).encode()[:9], np.uint8), "raw": value}


PIPELINE = Pipeline({"image": [picture], "text": [word]}, Source(1))


def encode_batch(modality: str, inputs: Any) -> np.ndarray:
    """Pictures by what they look like; words by their letters."""
    x = inputs["value"].reshape(len(inputs["value"]), -1).astype(np.float32)
    w = np.random.default_rng(len(modality)).normal(size=(x.shape[1], 6))
    z_BxD = (x / 255 - 0.5) @ w
    return (z_BxD / np.linalg.norm(z_BxD, axis=1, keepdims=True)).astype(np.float32)


def setup(monkeypatch: pytest.MonkeyPatch, n: int, batch_size: int) -> tuple[Embedded, Any]:
    source = Source(n)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    embedded = embed(encode_batch, source, PIPELINE, split="val", batch_size=4)
    embedded.z["text"][:] = embedded.z["image"]  # clean pictures find their own words

    def encode(modality: str, prompts: list[str]) -> np.ndarray:
        return encode_batch(modality, {"value": np.stack([word(p, rng=0, train=False)["value"]
                                                          for p in prompts])})  # fmt: skip

    model = SimpleNamespace(
        settings=None,
        pipeline=PIPELINE,
        batch_size=batch_size,
        mesh=data_mesh(jax.devices()[:1]),
        encode_batch=encode_batch,
        encode=encode,
        logit_scale=None,
    )
    return embedded, model


def test_equals_one_picture_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, model = setup(monkeypatch, 11, 4)
    chosen = ["occlusion", "noise", "contrast"]
    found = numbers(
        corruptions.evaluate(embedded, model, label="kind", corruptions=chosen, at=(1, 3), seed=9)
    )
    z_CxD = model.encode("text", ["dark one", "light"])
    hits: dict[str, Any] = {"recall@1": {}, "recall@3": {}, "top1": {}}
    for name in chosen:
        for severity in range(1, 6):
            key = name, severity
            right: dict[str, list[bool]] = {what: [] for what in hits}
            for i in range(11):
                pixels = corrupt(smooth(i, 8, 8), name, severity, i, 9)
                z_D = encode_batch("image", {"value": pixels[None]})[0]
                score_N = embedded.z["text"] @ z_D
                rank = 1 + sum(score_N > score_N[i])
                right["recall@1"].append(rank <= 1)
                right["recall@3"].append(rank <= 3)
                right["top1"].append(int(np.argmax(z_CxD @ z_D)) == i % 2)
            for what, of in right.items():
                hits[what][key] = np.mean(of)
    clean_top1 = numbers(zeroshot.evaluate(embedded, model, label="kind"))["zeroshot_kind/top1"]
    for what, of in hits.items():
        task = "corruptions_kind" if what == "top1" else "corruptions/image_to_text"
        clean = clean_top1 if what == "top1" else 1
        for name in chosen:
            expected = np.mean([of[name, s] for s in range(1, 6)])
            assert found.pop(f"{task}/{name}/{what}") == pytest.approx(expected)
        for s in range(1, 6):
            expected = np.mean([of[name, s] for name in chosen])
            assert found.pop(f"{task}/severity_{s}/{what}") == pytest.approx(expected)
        mean = np.mean(list(of.values()))
        assert found.pop(f"{task}/mean/{what}") == pytest.approx(mean)
        assert found.pop(f"{task}/clean/{what}") == pytest.approx(clean)
        assert found.pop(f"{task}/relative/{what}") == pytest.approx(mean / clean)
    assert found == pytest.approx(
        {
            "corruptions/image_to_text/clean/chance@1": 1 / 11,
            "corruptions/image_to_text/clean/chance@3": 3 / 11,
            "corruptions/image_to_text/clean/count": 11,
            "corruptions_kind/clean/chance": 0.5,
            "corruptions_kind/clean/count": 11,
        }
    )


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        numbers(corruptions.evaluate(*setup(monkeypatch, 9, size), corruptions=["noise", "jpeg"]))
        for size in (2, 9)
    ]
    assert found[0] == found[1]


def test_clusters_are_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, model = setup(monkeypatch, 6, 6)
    embedded.labels["concept"][:] = [0, 0, 1, 1, 2, 2]
    figures = corruptions.evaluate(embedded, model, corruptions=["blur"])
    of_blur = figures["corruptions/image_to_text/blur/recall@1"]
    assert isinstance(of_blur, PerItem) and of_blur.cluster_N is not None
    assert of_blur.cluster_N.tolist() == [0, 0, 1, 1, 2, 2]
    clean = numbers(retrieval.evaluate(embedded, model))
    for k in (1, 5, 10):
        chance = number(figures[f"corruptions/image_to_text/clean/chance@{k}"])
        assert chance == pytest.approx(clean[f"image_to_text/chance@{k}"])


def test_where_nothing_was_right_nothing_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, model = setup(monkeypatch, 4, 4)
    embedded.z["text"][:] = embedded.z["text"][0]  # all tie
    found = corruptions.evaluate(embedded, model, corruptions=["blur"], at=(1,))
    assert number(found["corruptions/image_to_text/mean/recall@1"]) == 0
    assert "corruptions/image_to_text/relative/recall@1" not in found


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    with jax.set_mesh(one_device):
        found = numbers(corruptions.evaluate(embedded, model, label="group"))
        clean = numbers(retrieval.evaluate(embedded, model))
        named = numbers(zeroshot.evaluate(embedded, model))
    for k in (1, 5, 10):
        of = clean[f"image_to_text/recall@{k}"]
        assert found[f"corruptions/image_to_text/clean/recall@{k}"] == of
    assert found["corruptions_group/clean/top1"] == named["zeroshot_group/top1"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(corruptions=["blurr"]), "no corruption 'blurr'. Did you mean 'blur'"),
        (dict(corruptions=[]), "give some of"),
        (dict(label="sort"), r"'sort' have no names: only those of \['kind'\]"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(modality="text"), r"'text' is no pictures, uint8 \(H, W, 3\)"),
        (dict(label="kind", templates=["a"]), "must each hold '{}'"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, 4, 4)
    with pytest.raises(InputError, match=message):
        corruptions.evaluate(embedded, model, **options)


def test_a_diverged_model_gets_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, model = setup(monkeypatch, 4, 4)
    bad = dataclasses.replace(embedded, z=embedded.z | {"text": np.full((4, 6), np.nan)})
    with pytest.raises(InputError, match="4 of 4 'text' .* diverged"):
        corruptions.evaluate(bad, model)
