"""What a model makes of corrupted pictures, texts and floats."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from scipy import ndimage

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from data_pipelines.transforms import text
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import corruptions, retrieval, zeroshot
from mmcl.evals.corrupted import corrupt, corrupted, known
from mmcl.evals.corruptions_floats import FLOATS
from mmcl.evals.corruptions_pictures import PICTURES
from mmcl.evals.corruptions_text import TEXTS
from mmcl.evals.embed import embed
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, number, numbers
from mmcl.mesh import data_mesh


def smooth(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(height, width, 3))
    x = ndimage.gaussian_filter(x, (3, 3, 0), mode="wrap")
    return np.uint8(np.clip(127.5 + 60 * x / x.std(), 0, 255))


class Source:
    label_names = {"kind": ["dark_one", "light"]}

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {
            "id": f"r{i}", "image": smooth(i, 8, 8), "text": f"w{i}", "kind": i % 2,
            "tone": np.random.default_rng(i).normal(size=12).astype(np.float32), "count": i,
            "said": {"en": [said(i), "other words"], "de": ["ein Wort"]},
        }  # fmt: skip


def said(i: int) -> str:
    return f"Record number {i} of all"


def picture(value: Any, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": value}


def word(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.frombuffer(value.ljust(9).encode()[:9], np.uint8), "raw": value}


def number_of(value: int, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.int32([value])}


def letters(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.frombuffer(value.ljust(40).encode()[:40], np.uint8), "raw": value}


def lower(value: str, *, rng: Any, train: bool) -> str:
    return value.lower()


CHOOSE = functools.partial(text.choose, languages=["en"])
PIPELINE = Pipeline(
    {
        "image": [picture], "text": [word], "tone": [picture], "said": [CHOOSE, lower, letters],
        "count": [number_of],
    },
    Source(1),
)  # fmt: skip


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
                pixels = corrupt(smooth(i, 8, 8), i, PICTURES, name, severity, 9)
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


@pytest.mark.parametrize("modality", ["tone", "said"])
def test_floats_and_texts(monkeypatch: pytest.MonkeyPatch, modality: str) -> None:
    """A text is corrupted as soon as it is a string: one of several, and not yet in lower case."""
    embedded, model = setup(monkeypatch, 7, 3)
    those = FLOATS if modality == "tone" else TEXTS
    assert known(embedded, model, modality) is those
    record = np.array([5, 0, 6, 2])
    made = list(corrupted(embedded, model, record, modality, those, 4))
    assert [of.tolist() for of, _ in made] == [[5, 0, 6], [2]]
    for of, z_VxD in made:
        z = z_VxD.reshape(len(those), 5, len(of), -1)
        for c, name in enumerate(those):
            for severity in range(1, 6):
                for r, i in enumerate(of.tolist()):
                    raw = Source(7)[i]["tone"] if modality == "tone" else said(i)
                    value = corrupt(raw, i, those, name, severity, 4)
                    if modality == "said":
                        value = letters(value.lower(), rng=0, train=False)["value"]
                    inputs = {"value": value[None].astype(value.dtype)}
                    expected = encode_batch(modality, inputs)[0]
                    np.testing.assert_allclose(z[c, severity - 1, r], expected, atol=1e-5)


def test_chance_hangs_on_the_corruption_too() -> None:
    those = {name: PICTURES["noise"] for name in ("one", "two")}
    one, two = (corrupt(smooth(0), 3, those, name, 1, 0) for name in those)
    assert (one != two).any()
    np.testing.assert_array_equal(one, corrupt(smooth(0), 3, those, "one", 1, 0))


@pytest.mark.parametrize(
    "options",
    [dict(corruptions=["noise", "jpeg"]), dict(modality="tone"), dict(modality="said")],
)
def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    found = [
        numbers(corruptions.evaluate(*setup(monkeypatch, 9, size), **options)) for size in (2, 9)
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
    with jax.set_mesh(one_device):
        found = numbers(corruptions.evaluate(embedded, model, modality="text", to="image"))
    for k in (1, 5, 10):
        of = clean[f"text_to_image/recall@{k}"]
        assert found[f"corruptions/text_to_image/clean/recall@{k}"] == of
    assert {name.split("/")[2] for name in found} >= TEXTS.keys()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(corruptions=["blurr"]), "no corruption 'blurr'. Did you mean 'blur'"),
        (dict(corruptions=[]), "give some of"),
        (dict(label="sort"), r"'sort' have no names: only those of \['kind'\]"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(modality="count"), r"'count' is neither pictures, uint8 \(H, W, 3\), nor text"),
        (dict(modality="said", corruptions=["jpeg"]), "no corruption 'jpeg'. There is: double_le"),
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
