"""Hubs and inverse graph convolution against SciPy, literal loops, and a real model."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import hubness, retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.mesh import data_mesh


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(
    image: Any, text: Any, concepts: Any = None, words: Sequence[str] | None = None
) -> Embedded:
    n = len(image)
    concepts = np.arange(n) if concepts is None else concepts
    return Embedded(
        split="val",
        z={"image": np.asarray(image, np.float32), "text": np.asarray(text, np.float32)},
        labels={"concept": np.asarray(concepts, np.int32)},
        shown={
            "image": np.zeros((n, 2, 2, 3), np.uint8),
            "text": [f"text {i}" for i in range(n)] if words is None else list(words),
        },
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def evaluate(embedded: Embedded, model: Any = None, **options: Any) -> dict[str, float]:
    return numbers(hubness.evaluate(embedded, model, **options))


def cone(seed: int, n: int, d: int = 6) -> dict[str, np.ndarray]:
    """Two modalities' rows that crowd around a direction each, as those of trained models do."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, d))
    return {
        name: unit(common + rng.normal(size=(n, d)) + 2 * rng.normal(size=d))
        for name in ("image", "text")
    }


def literal_push(
    z_NxD: np.ndarray, banks: Sequence[np.ndarray], r: float, k: int | None
) -> list[list[float]]:
    def scaled(x: list[float]) -> list[float]:
        length = sum(a * a for a in x) ** 0.5
        return [a / length for a in x]

    moved = []
    for x in z_NxD.tolist():
        halves = []
        for bank in banks:
            score = [(sum(a * b for a, b in zip(x, row)), row) for row in bank.tolist()]
            score = sorted(score, key=lambda one: -one[0])[:k]
            mean = [sum(s * row[d] for s, row in score) / len(score) for d in range(len(x))]
            halves.append(scaled([a - r * m for a, m in zip(x, mean)]))
        moved.append(scaled([(a + b) / 2 for a, b in zip(*halves)]))
    return moved


@hypothesis.given(
    st.integers(2, 40),
    st.sampled_from([1, 3, 60]),
    st.sampled_from([0.0, 0.3, 0.8]),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_equals_scipy_and_literal_loops(n: int, k: int, r: float, seed: int) -> None:
    z = cone(seed, n)
    found = evaluate(split(z["image"], z["text"]), k=k, r=r, at=(1, 5))
    for from_, to in (("image", "text"), ("text", "image")):
        banks = [z[from_], z[to]]
        local = np.array(literal_push(z[to], banks, r, k))
        for task, gallery in [
            ("hubness", z[to].astype(np.float64)),
            ("hubness_invgc", np.array(literal_push(z[to], banks, r, None))),
            ("hubness_local", local),
        ]:
            name = f"{task}/{from_}_to_{to}"
            score_QxG = z[from_].astype(np.float64) @ gallery.T
            order_QxG = np.argsort(-score_QxG, axis=1)
            gaps = -np.diff(np.sort(-score_QxG, axis=1), axis=1)
            hypothesis.assume(n == 1 or np.abs(gaps).min() > 3e-6)  # rounding decides
            times = [int(np.sum(order_QxG[:, :k] == g)) for g in range(n)]
            if len(set(times)) > 1:
                assert found[f"{name}/skewness"] == pytest.approx(scipy.stats.skew(times))
            else:
                assert f"{name}/skewness" not in found
            assert found[f"{name}/antihubs"] == np.mean([t == 0 for t in times])
            assert found[f"{name}/largest_share"] == max(times) / n
            own = [list(order).index(i) for i, order in enumerate(order_QxG)]
            assert found[f"{name}/recall@1"] == np.mean([at < 1 for at in own])
            assert found[f"{name}/recall@5"] == np.mean([at < 5 for at in own])


def test_rows_are_moved_as_literal_loops_move_them() -> None:
    z = cone(0, 30)
    for k, r in [(None, 0.7), (4, 0.7), (100, 1.0)]:
        found = hubness.pushed(z["image"], [z["image"], z["text"][:20]], r, k)
        expected = literal_push(z["image"], [z["image"], z["text"][:20]], r, k)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_before_is_plain_retrieval() -> None:
    rng = np.random.default_rng(1)
    z = cone(1, 60)
    embedded = split(z["image"], z["text"], rng.integers(20, size=60), list(map(str, range(60))))
    found, plain = evaluate(embedded), numbers(retrieval.evaluate(embedded, None))
    for name in ("image_to_text", "text_to_image"):
        for metric in ("recall@1", "recall@5", "recall@10", "chance@1", "chance@10"):
            assert found[f"hubness/{name}/{metric}"] == plain[f"{name}/{metric}"]


def test_known_values() -> None:
    degrees = np.radians([0, 50, 100, 150])
    gallery = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    found = evaluate(split(gallery[[0, 0, 0, 1]], gallery), pairs=[("image", "text")], k=1, r=0.0)
    name = "hubness/image_to_text"
    assert found[f"{name}/antihubs"] == 0.5 and found[f"{name}/largest_share"] == 0.75
    # N = 3, 1, 0, 0: both moments are 1.5
    assert found[f"{name}/skewness"] == pytest.approx(1.5 / 1.5**1.5)
    assert found[f"{name}/random_antihubs"] == pytest.approx(0.75**4)
    for task in ("hubness_invgc", "hubness_local"):  # r = 0 moves nothing
        assert found[f"{task}/image_to_text/recall@1"] == found[f"{name}/recall@1"] == 0.25


@pytest.mark.parametrize("k", [None, 5])
def test_items_move_apart(k: int | None) -> None:
    z = cone(6, 100)["image"]
    inside = [float(np.mean(rows @ rows.T)) for rows in (z, hubness.pushed(z, [z, z], 0.5, k))]
    assert inside[1] < inside[0] - 0.05


def test_the_banks_of_another_split() -> None:
    z, other = cone(3, 40), cone(4, 25)
    asked: list[Any] = []

    def embed(name: str, modalities: list[str]) -> Embedded:
        asked.append((name, modalities))
        return split(other["image"], other["text"])

    model = SimpleNamespace(embed=embed)
    embedded = split(z["image"], z["text"])
    options: dict[str, Any] = dict(pairs=[("image", "text")], k=3)
    found = evaluate(embedded, model, banks="train", **options)
    assert asked == [("train", ["image", "text"])]
    moved = hubness.pushed(z["text"], [other["image"], other["text"]], 0.5, 3)
    expected = evaluate(split(z["image"], moved), **options)
    for metric in ("skewness", "antihubs", "recall@1"):
        name = f"image_to_text/{metric}"
        assert found[f"hubness_local/{name}"] == expected[f"hubness/{name}"]
    assert evaluate(embedded, banks="val", **options) == evaluate(embedded, **options)


def test_a_collapsed_model_is_all_hub() -> None:
    z_NxD = unit(np.ones((30, 4)))
    found = evaluate(split(z_NxD, z_NxD), k=3)
    for task in ("hubness", "hubness_invgc", "hubness_local"):
        assert found[f"{task}/image_to_text/recall@10"] == 0
    assert found["hubness/image_to_text/largest_share"] == 1
    assert found["hubness/image_to_text/antihubs"] == 0.9


def test_queries_without_an_answer_have_neighbours_but_no_recall() -> None:
    embedded = split(np.eye(4), np.eye(4)[[0, 0, 1, 1]], [0, 0, 1, 1], list("aabb"))
    figures = hubness.evaluate(embedded, None, k=1, pairs=[("image", "text")])  # type: ignore[arg-type]
    recall = figures["hubness/image_to_text/recall@1"]
    assert isinstance(recall, PerItem) and len(recall.value_N) == 4


def test_devices_change_nothing() -> None:
    z = cone(5, 150)
    embedded = split(z["image"], z["text"])
    one = evaluate(embedded)
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded) == pytest.approx(one, abs=1e-9)


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "hubness", "banks": "train", "k": 3}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    for task in ("hubness", "hubness_invgc", "hubness_local"):
        assert 0 <= found[f"eval/unseen_artist/{task}/text_to_image/recall@1"] <= 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(pairs=[("image", "texts")]), "no modality 'texts' in 'val'. Did you mean 'text'?"),
        (dict(label="group"), "no label 'group' in 'val'"),
        (dict(k=0), "k=0, r=0.5: k should be 1 or more"),
        (dict(r=-1.0), "r 0 or more"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate(split(np.eye(3), np.eye(3)), **options)
    assert message in str(error.value)


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        evaluate(split(np.eye(2), np.full((2, 2), np.nan)))
