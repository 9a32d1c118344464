"""Late interaction against loops, token by token, on one device and on many."""

import dataclasses
import re
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
from mmcl.evals import late_interaction, pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh
from mmcl.model import Model
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers

D = 4


class Given(nn.Module):
    """Its tokens are twice what it is given."""

    tokens: bool = True

    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x_BxTxD = 2 * inputs["value"]
        return Embedding(x_BxTxD.mean(axis=1), x_BxTxD if self.tokens else None, inputs.get("mask"))


TOWERS = Towers({"image": Given(), "text": Given(), "tone": Given(tokens=False)})


def as_it_is(value: Any, *, rng: Any, train: bool) -> Any:
    return value


class Source:
    """Patches without a mask; words with one, of which some records have few, and some no text."""

    label_names: dict[str, list[str]] = {}

    def __init__(self, n: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.image = rng.normal(size=(n, 5, D)).astype(np.float32)
        self.text = rng.normal(size=(n, 3, D)).astype(np.float32)
        self.mask = np.arange(3) < rng.integers(0, 4, size=(n, 1))
        self.text[:, :2] += self.image[:, :2]  # a picture and its words are near

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, i: int) -> dict[str, Any]:
        text = {"value": self.text[i], "mask": self.mask[i]} if self.mask[i].any() else None
        image = {"value": self.image[i]}
        return {"id": f"r{i}", "image": image, "text": text, "tone": image}


def setup(
    monkeypatch: pytest.MonkeyPatch,
    source: Source,
    mesh: Mesh,
    concept: Any = None,
    words: Any = None,
) -> tuple[Embedded, Model]:
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    settings: Any = SimpleNamespace(eval=SimpleNamespace(batch_size=4))
    pipeline = Pipeline({name: [as_it_is] for name in TOWERS.modules}, source)
    params: Any = {name: {} for name in TOWERS.modules}
    model = Model(settings, pipeline, TOWERS, {}, params, mesh)
    n = len(source)
    embedded = Embedded(
        split="val",
        z=dict.fromkeys(("image", "text"), np.zeros((n, D), np.float32)),
        labels={"concept": np.arange(n, dtype=np.int32) if concept is None else concept},
        shown={"image": [np.zeros((2, 2, 3), np.uint8)] * n, "text": words or ["x"] * n},
        ids=[f"r{i}" for i in range(n)],
        label_names={},
    )
    return embedded, model


def judged(embedded: Embedded, model: Model, mesh: Mesh, **options: Any) -> Any:
    with jax.set_mesh(mesh):
        return late_interaction.evaluate(embedded, model, **options)


def similarity(query_TxD: Any, item_UxD: Any) -> float:
    """The mean over the query's tokens of the largest cosine with one of the item's."""
    if not len(query_TxD):
        return 0.0
    if not len(item_UxD):
        return -2.0
    total = 0.0
    for t in query_TxD.astype(np.float64):
        cosines = [
            t @ u / np.linalg.norm(t) / np.linalg.norm(u) for u in item_UxD.astype(np.float64)
        ]
        total += max(cosines)
    return total / len(query_TxD)


def rank(scores: list[float], right: list[bool]) -> int:
    best = max(score for score, one in zip(scores, right) if one)
    return 1 + sum(score > best - TIE for score, one in zip(scores, right) if not one)


def literal_ranks(queries: Any, gallery: Any, label_Q: Any, label_G: Any) -> list[int]:
    return [
        rank([similarity(q, g) for g in gallery], [label == one for one in label_G])
        for q, label in zip(queries, label_Q)
    ]


def sides(source: Source, width: int | None = None) -> dict[str, list[np.ndarray]]:
    """The tokens that are there, of each record."""
    text = [x[there][:, :width] for x, there in zip(source.text, source.mask)]
    return {"image": [x[:, :width] for x in source.image], "text": text}


@pytest.mark.parametrize("devices", [1, 8])
def test_equals_loops_over_all_tokens(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    source, mesh = Source(21), data_mesh(jax.devices()[:devices])
    assert (source.mask.sum(axis=1) == 0).any()
    concept = np.arange(21, dtype=np.int32) // 2
    embedded, model = setup(monkeypatch, source, mesh, concept, [f"words {i}" for i in range(21)])
    found = judged(embedded, model, mesh, at=[1, 4])
    of = sides(source)
    for from_, to in (("image", "text"), ("text", "image")):
        ranks = literal_ranks(of[from_], of[to], concept, concept)
        name = f"{from_}_to_{to}"
        assert found[f"{name}/median_rank"].value_N.tolist() == ranks
        assert found[f"{name}/recall@4"].value_N.tolist() == [one <= 4 for one in ranks]
        assert 1 < np.mean(ranks) < 9
    assert {key.rpartition("/")[0] for key in found} == {
        "image_to_text",
        "text_to_image",
    }


def test_equal_strings_are_one_item(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    source = Source(6, seed=3)
    concept = np.array([0, 0, 1, 1, 2, 2], np.int32)
    words = ["a", "a", "b", "c", "d", "d"]
    embedded, model = setup(monkeypatch, source, one_device, concept, words)
    found = judged(embedded, model, one_device, pairs=[("text", "image")])
    first = [0, 2, 3, 4]
    of = sides(source)
    ranks = literal_ranks([of["text"][i] for i in first], of["image"], concept[first], concept)
    assert found["text_to_image/median_rank"].value_N.tolist() == ranks
    told = numbers(found)
    assert told["text_to_image/queries"] == 4 and told["text_to_image/gallery"] == 6
    assert not any(key.startswith("image_to_text") for key in found)


def test_what_has_no_tokens_comes_last(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    source = Source(5, seed=1)
    source.mask[:] = True
    source.mask[2] = False
    embedded, model = setup(monkeypatch, source, one_device, words=list("abcde"))
    found = judged(embedded, model, one_device)
    assert found["text_to_image/median_rank"].value_N[2] == 5  # ties with all
    assert found["image_to_text/median_rank"].value_N[2] == 5  # behind all


def test_a_collapsed_model_finds_nothing(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    source = Source(5)
    source.image[:], source.text[:] = source.image[0, 0], source.text[0, 0]
    source.mask[:] = True
    embedded, model = setup(monkeypatch, source, one_device, words=list("abcde"))
    found = judged(embedded, model, one_device)
    for way in ("image_to_text", "text_to_image"):
        assert found[f"{way}/median_rank"].value_N.tolist() == [5] * 5


def test_leading_dimensions_alone(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    source = Source(9, seed=2)
    source.mask[:] = True
    embedded, model = setup(monkeypatch, source, one_device, words=list("abcdefghi"))
    short = dataclasses.replace(model, prefix=2)
    found = judged(embedded, short, one_device)
    of, label = sides(source, 2), embedded.labels["concept"]
    ranks = literal_ranks(of["image"], of["text"], label, label)
    assert found["image_to_text/median_rank"].value_N.tolist() == ranks
    assert ranks != literal_ranks(*sides(source).values(), label, label)


def test_no_grid_is_stored() -> None:
    """Twice as many items take less than three times the memory; a grid would take four times."""
    temp = []
    for n in (1501, 3002):
        tokens = np.random.default_rng(0).normal(size=(n, 3, D))
        side = pairs.side(tokens, np.arange(n), mask=np.ones((n, 3), bool))
        work = jax.jit(lambda a, b: pairs._ahead(a, b, late_interaction.late))
        lowered = work.lower(side, side).compile()
        size = len(side["real"])
        assert not re.search(rf"\[{size},(3,)?{size}[,\]]", lowered.as_text())
        temp.append(lowered.memory_analysis().temp_size_in_bytes)
    assert temp[1] < 3 * temp[0]


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, one_device: Mesh) -> None:
    source = Source(4)
    source.mask[:] = True
    embedded, model = setup(monkeypatch, source, one_device)
    with pytest.raises(InputError, match="from 'image' to itself"):
        judged(embedded, model, one_device, pairs=[("image", "image")])
    with pytest.raises(InputError, match="no modality 'imag' in 'val'"):
        judged(embedded, model, one_device, pairs=[("imag", "text")])
    tone = dataclasses.replace(
        embedded,
        z=embedded.z | {"tone": embedded.z["image"]},
        shown={**embedded.shown, "tone": embedded.shown["image"]},
    )
    with pytest.raises(InputError, match="the tower of 'tone' gives no tokens"):
        judged(tone, model, one_device, pairs=[("tone", "text")])
    source.text[1, 0] = 3e38
    with pytest.raises(InputError, match="some 'text' tokens are NaN or infinite"):
        judged(embedded, model, one_device)
