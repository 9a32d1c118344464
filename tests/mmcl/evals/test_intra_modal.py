"""Retrieval within one modality against literal loops and a metric learning library."""

import itertools
from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import intra_modal
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z_NxD: Any, labels: Any, words: Sequence[str] | None = None) -> Embedded:
    n = len(labels)
    return Embedded(
        split="val",
        z={"image": np.asarray(z_NxD, np.float32)},
        labels={
            "group": np.asarray(labels, np.int32),
            "concept": np.arange(n, dtype=np.int32) // 2,
        },
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8) if words is None else list(words)},
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def evaluate(embedded: Embedded, **options: Any) -> dict[str, float]:
    found = numbers(intra_modal.evaluate(embedded, None, **{"label": "group", **options}))
    return {name.removeprefix("intra_modal_group/image/"): one for name, one in found.items()}


def literal(z_NxD: np.ndarray, labels: Sequence[int]) -> tuple[list[int], list[float]]:
    """The rank and the average precision of each query, wrong items first on ties."""
    n, ranks, precisions = len(labels), [], []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        score = {j: sum(float(a) * float(b) for a, b in zip(z_NxD[i], z_NxD[j])) for j in others}
        right = sorted((j for j in others if labels[j] == labels[i]), key=lambda j: -score[j])
        wrong = [j for j in others if labels[j] != labels[i]]
        if not right:
            continue
        at = []
        for number, j in enumerate(right, start=1):
            gaps = [score[w] - score[j] + TIE for w in wrong]
            hypothesis.assume(all(abs(gap) > 5e-7 for gap in gaps))  # rounding decides
            at.append(number + sum(gap > 0 for gap in gaps))
        ranks.append(at[0])
        hits = [sum(p <= cut for p in at) / cut for cut in range(1, len(right) + 1) if cut in at]
        precisions.append(sum(hits) / len(right))
    return ranks, precisions


@hypothesis.given(st.integers(3, 50), st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_equals_literal_loops(n: int, groups: int, copies: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(groups, size=n)
    hypothesis.assume(len(set(labels)) < n)
    z_NxD = unit(rng.normal(size=(n, 8)))
    if copies:
        z_NxD = z_NxD[rng.integers(max(n // 3, 1), size=n)]
    ranks, precisions = literal(z_NxD, labels.tolist())
    found = evaluate(split(z_NxD, labels), at=(1, 3))
    assert found["recall@1"] == pytest.approx(np.mean([rank <= 1 for rank in ranks]))
    assert found["recall@3"] == pytest.approx(np.mean([rank <= 3 for rank in ranks]))
    assert found["map@R"] == pytest.approx(np.mean(precisions))
    assert found["queries"] == len(ranks) and found["gallery"] == n


def test_equals_pytorch_metric_learning() -> None:
    torch = pytest.importorskip("torch")
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), rng.integers(2, 9, size=40))
    z_NxD = unit(rng.normal(size=(40, 16))[labels] + 1.5 * rng.normal(size=(len(labels), 16)))
    theirs = accuracy.AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1"),
        k="max_bin_count",
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    ).get_accuracy(torch.tensor(z_NxD), torch.tensor(labels))
    found = evaluate(split(z_NxD, labels))
    assert found["map@R"] == pytest.approx(theirs["mean_average_precision_at_r"])
    assert found["recall@1"] == pytest.approx(theirs["precision_at_1"])


@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 2], [5, 5]])
def test_chance_is_that_of_all_orders(labels: list[int]) -> None:
    hits, precisions = [], []
    for i, own in enumerate(labels):
        others = [other == own for j, other in enumerate(labels) if j != i]
        for order in itertools.permutations(others) if any(others) else []:
            hits.append(any(order[:2]))
            cuts = [cut for cut in range(1, sum(order) + 1) if order[cut - 1]]
            precisions.append(sum(sum(order[:cut]) / cut for cut in cuts) / sum(order))
    found = evaluate(split(unit(np.ones((len(labels), 2))), labels), at=(2,))
    assert found["chance@2"] == pytest.approx(np.mean(hits))
    assert found["map@R_chance"] == pytest.approx(np.mean(precisions))


def test_known_values() -> None:
    degrees = np.radians([0, 10, 30, 31, 180])
    z_NxD = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    found = evaluate(split(z_NxD, [0, 1, 0, 0, 2]), at=(1, 2))
    # 0: 1 wrong before both; 2 and 3: each other first, then the wrong one before 0
    assert found["recall@1"] == pytest.approx(2 / 3) and found["recall@2"] == 1
    assert found["map@R"] == pytest.approx(np.mean([1 / 4, 1 / 2, 1 / 2]))
    assert found["queries"] == 3 and found["gallery"] == 5


def test_a_collapsed_model_finds_nothing() -> None:
    found = evaluate(split(unit(np.ones((30, 3))), np.arange(30) // 2))
    assert found["recall@10"] == found["map@R"] == 0


def test_one_class_is_always_right() -> None:
    found = evaluate(split(unit(np.random.default_rng(0).normal(size=(9, 3))), np.zeros(9)))
    assert found["recall@1"] == found["chance@1"] == 1
    assert found["map@R"] == found["map@R_chance"] == pytest.approx(1)


def test_equal_strings_are_one_item_and_concepts_are_the_clusters() -> None:
    embedded = split(np.eye(2)[[0, 0, 0, 1]], [0, 0, 0, 1], ["red", "red", "crimson", "blue"])
    figures = intra_modal.evaluate(embedded, None, label="group")
    assert numbers(figures)["intra_modal_group/image/queries"] == 2
    assert numbers(figures)["intra_modal_group/image/gallery"] == 3
    recall = figures["intra_modal_group/image/recall@1"]
    assert isinstance(recall, PerItem) and recall.cluster_N is not None
    assert recall.cluster_N.tolist() == [0, 1]


def test_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    embedded = split(unit(rng.normal(size=(150, 8))), rng.integers(20, size=150))
    whole = evaluate(embedded)
    monkeypatch.setattr(intra_modal, "CELLS", 1)
    assert evaluate(embedded) == whole


def test_devices_change_nothing() -> None:
    rng = np.random.default_rng(2)
    embedded = split(unit(rng.normal(size=(150, 8))), rng.integers(20, size=150))
    one = evaluate(embedded)
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded) == pytest.approx(one, abs=1e-12)


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "intra_modal", "label": "group"}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    for modality in ("image", "text"):
        name = f"eval/unseen_artist/intra_modal_group/{modality}"
        assert 0 <= found[f"{name}/recall@1"] <= found[f"{name}/recall@5"] <= 1
        assert 0 < found[f"{name}/queries"] <= found[f"{name}/gallery"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(modalities=["images"]), "no modality 'images' in 'val'. Did you mean 'image'?"),
        (dict(label="kind"), "no label 'kind' in 'val'"),
        (dict(modalities=["image"]), "no two 'image' items of 'val' share a 'group'"),
        (dict(), "no two items of 'val' share a 'group': give another"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate(split(np.eye(3), [0, 1, 2]), **options)
    assert message in str(error.value)


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="2 of 2 'image' .* diverged"):
        evaluate(split(np.full((2, 2), np.nan), [0, 0]))
