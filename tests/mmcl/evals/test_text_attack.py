"""Attacked texts, against a search by loops."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import retrieval, text_attack
from mmcl.evals.embed import embed
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.texts import Texts
from mmcl.mesh import data_mesh

WORDS = ["red", "fox", "sees", "a", "small", "dog", "Tree", "under"]
VECTOR = {word: np.random.default_rng(i).normal(size=4) for i, word in enumerate(WORDS)}


def said(i: int, words: int) -> str:
    rng = np.random.default_rng(100 + i)
    return " ".join(rng.choice(WORDS, words, replace=False))


class Source:
    label_names: dict[str, list[str]] = {}

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"id": f"r{i}", "text": self.texts[i]}


def vector(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    """Words by their vectors, in an order that counts."""
    weight = 1 + 0.1 * np.arange(len(value.split()))
    z = sum(w * VECTOR[word] for w, word in zip(weight, value.split()))
    return {"value": np.float32(z), "raw": value}


def encode_batch(modality: str, inputs: Any) -> np.ndarray:
    z = inputs["value"]
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))


def z_of(text: str) -> np.ndarray:
    return encode_batch("text", {"value": vector(text, rng=0, train=False)["value"][None]})[0]


def setup(
    monkeypatch: pytest.MonkeyPatch, texts: list[str], batch_size: int = 4
) -> tuple[Embedded, Any]:
    source = Source(texts)
    pipeline = Pipeline({"text": [vector]}, source)
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    embedded = embed(encode_batch, source, pipeline, split="val", batch_size=4)
    noise = np.random.default_rng(0).normal(0, 0.3, embedded.z["text"].shape)
    embedded.z["image"] = encode_batch("image", {"value": embedded.z["text"] + noise})
    embedded.z["image"] = embedded.z["image"].astype(np.float32)
    embedded.shown["image"] = np.zeros((len(texts), 2, 2, 3), np.uint8)
    model = SimpleNamespace(
        settings=None, pipeline=pipeline, batch_size=batch_size, encode_batch=encode_batch,
        mesh=data_mesh(jax.devices()[:1]),
    )  # fmt: skip
    return embedded, model


def cos(words: list[str], partner: np.ndarray) -> float:
    return float(z_of(" ".join(word for word in words if word)) @ partner)


def changed(words: list[str], i: int, word: str) -> list[str]:
    return [word if k == i else own for k, own in enumerate(words)]


def out(words: list[str], i: int) -> list[str]:
    return words if sum(map(bool, words)) == 1 else changed(words, i, "")


def literal(text: str, partner: np.ndarray, words: int, others: list[list[str]]) -> list[str]:
    now: list[str] = text.split()
    free = list(range(len(now)))
    for round_ in range(words):
        if free:
            at = [cos(out(now, i), partner) for i in free]
            place = free[at.index(min(at))]
            tries = [out(now, place), *(changed(now, place, word) for word in others[round_])]
            best = min(tries, key=lambda words: cos(words, partner))
            if cos(best, partner) < cos(now, partner):
                now = best
                free.remove(place)
    return now


@pytest.mark.parametrize("words", [1, 2, 4])
def test_equals_a_search_by_loops(monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    texts = [said(i, 1 + i % 4) for i in range(9)]
    embedded, model = setup(monkeypatch, texts)
    read = Texts("text", texts, model.pipeline, model)
    z, changed_N = text_attack.attacked(read, embedded.z["image"], words, 3, 5)
    vocabulary = sorted({word for text in texts for word in text.split()})
    for i, text in enumerate(texts):
        rng = np.random.default_rng([5, i])
        others = [rng.choice(vocabulary, 3, replace=False).tolist() for _ in range(words)]
        expected = literal(text, embedded.z["image"][i], words, others)
        np.testing.assert_allclose(z[i], z_of(" ".join(filter(None, expected))), atol=1e-6)
        assert changed_N[i] == sum(a != b for a, b in zip(text.split(), expected))


def test_more_words_do_more_harm_and_batches_none(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [said(i, 4) for i in range(12)]
    found = {
        (words, size): numbers(
            text_attack.evaluate(*setup(monkeypatch, texts, size), words=words, candidates=4)
        )
        for words, size in ((1, 5), (1, 12), (2, 12))
    }
    assert found[1, 5] == pytest.approx(found[1, 12])
    one, two = found[1, 12], found[2, 12]
    cosines = [two["text_attack/attacked/cosine"], one["text_attack/attacked/cosine"],
               one["text_attack/clean/cosine"]]  # fmt: skip
    assert cosines == sorted(cosines) and cosines[0] < cosines[1] - 0.01 < cosines[2] - 0.02
    assert 0 < one["text_attack/attacked/words"] <= 1 < two["text_attack/attacked/words"] <= 2


def test_figures_are_those_of_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [said(i, 3) for i in range(10)]
    embedded, model = setup(monkeypatch, texts)
    found = numbers(text_attack.evaluate(embedded, model, candidates=4, at=(1, 3)))
    clean = numbers(retrieval.evaluate(embedded, model, at=(1, 3)))
    read = Texts("text", texts, model.pipeline, model)
    z, _ = text_attack.attacked(read, embedded.z["image"], 1, 4, 0)
    embedded.z["text"] = z.astype(np.float32)
    harmed = numbers(retrieval.evaluate(embedded, model, at=(1, 3)))
    for way in ("text_to_image", "image_to_text"):
        for k in (1, 3):
            name = f"text_attack/{way}"
            assert found[f"{name}/clean/recall@{k}"] == clean[f"{way}/recall@{k}"]
            assert found[f"{name}/attacked/recall@{k}"] == harmed[f"{way}/recall@{k}"]
            assert found[f"{name}/clean/chance@{k}"] == clean[f"{way}/chance@{k}"]
        assert found[f"{name}/clean/count"] == 10
        lost = 1 - found[f"{name}/attacked/recall@1"] / found[f"{name}/clean/recall@1"]
        assert found[f"{name}/attacked/success"] >= lost - 1e-9 > 0


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    with jax.set_mesh(one_device):
        found = numbers(text_attack.evaluate(embedded, model, candidates=2))
        clean = numbers(retrieval.evaluate(embedded, model))
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            of = found[f"text_attack/{way}/clean/recall@{k}"]
            assert of == clean[f"{way}/recall@{k}"]
    assert found["text_attack/attacked/cosine"] < found["text_attack/clean/cosine"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(words=0), "words=0, candidates=32: 1 or more"),
        (dict(candidates=-1), "words=1, candidates=-1"),
        (dict(to="text"), "no partner of itself"),
        (dict(to="sound"), "no modality 'sound'"),
        (dict(label="kind"), "no label 'kind'"),
    ],
)
def test_wrong_options_are_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    embedded, model = setup(monkeypatch, ["red fox", "a dog"])
    with pytest.raises(InputError, match=message):
        text_attack.evaluate(embedded, model, **options)
