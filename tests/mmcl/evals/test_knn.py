"""Weighted votes of the nearest neighbours."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import knn
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh


def split(name: str, z_NxD: Any, groups: Sequence[int] | np.ndarray) -> Embedded:
    n = len(groups)
    return Embedded(
        split=name,
        z={"image": np.asarray(z_NxD, np.float32)},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8)},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": list("abcdef")},
    )


def evaluate(judged: Embedded, train: Embedded, **options: Any) -> dict[str, float]:
    settings = SimpleNamespace(source={"split": "train"})
    model: Any = SimpleNamespace(embed=lambda *_: train, settings=settings, kept={})
    return numbers(knn.evaluate(judged, model, **options))


def problem(seed: int, n: int, m: int, classes: int = 4) -> tuple[Embedded, Embedded]:
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(classes, 5))
    made = []
    for name, size in (("val", m), ("train", n)):
        class_N = np.concatenate([[0, 1], rng.integers(classes, size=size - 2)])
        x_NxD = axes[class_N] + rng.normal(size=(size, 5))
        made.append(split(name, knn.unit(x_NxD), class_N))
    return made[0], made[1]


@hypothesis.given(
    st.integers(2, 60),
    st.integers(2, 60),
    st.sampled_from([1, 3, 20, 100]),
    st.sampled_from([0.001, 0.07, 10]),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_equals_literal_loops(n: int, m: int, k: int, temperature: float, seed: int) -> None:
    judged, train = problem(seed, n, m)
    hits, close = [], False
    for z_D, right in zip(judged.z["image"].tolist(), judged.labels["group"].tolist()):
        cosines = [sum(a * b for a, b in zip(z_D, row)) for row in train.z["image"].tolist()]
        order = sorted(range(n), key=lambda j: -cosines[j])
        close |= k < n and cosines[order[k - 1]] - cosines[order[k]] < 1e-5
        score: dict[int, float] = {}
        for j in order[:k]:
            vote = math.exp((cosines[j] - cosines[order[0]]) / temperature)
            label = int(train.labels["group"][j])
            score[label] = score.get(label, 0) + vote
        first, *rest = sorted(score.values(), reverse=True)
        close |= bool(rest) and first < rest[0] * (1 + 1e-5 / temperature)
        hits.append(max(score, key=lambda label: score[label]) == right)
    hypothesis.assume(not close)  # rounding decides
    found = evaluate(judged, train, k=k, temperature=temperature)
    assert found["knn_group/top1"] == pytest.approx(np.mean(hits))
    assert found["knn_group/count"] == m


def test_equals_scikit_learn() -> None:
    neighbours = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")
    judged, train = problem(0, 300, 200)
    theirs = neighbours.KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.z["image"], train.labels["group"])
    expected = theirs.score(judged.z["image"], judged.labels["group"])
    assert evaluate(judged, train)["knn_group/top1"] == pytest.approx(expected)


def test_near_ones_outvote_many() -> None:
    def at(degrees: float) -> list[float]:
        return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]

    train = split("train", [at(0), at(60), at(60), at(-60)], [0, 1, 1, 1])
    judged = split("val", [at(0)], [0])
    assert evaluate(judged, train, k=4)["knn_group/top1"] == 1  # e^0 against 3 e^(-0.5 / 0.07)
    assert evaluate(judged, train, k=4, temperature=1.0)["knn_group/top1"] == 0


def test_ties_and_unseen_classes_are_wrong() -> None:
    axes = np.eye(3)
    train = split("train", axes[[0, 0, 1]], [0, 1, 2])
    judged = split("val", axes[[0, 1, 1]], [0, 2, 3])
    found = evaluate(judged, train, k=2)
    assert found == pytest.approx(
        {
            "knn_group/top1": 1 / 3,
            "knn_group/mean_per_class": 1 / 3,
            "knn_group/chance": 1 / 3,
            "knn_group/count": 3,
        }
    )


def test_a_collapsed_model_is_no_better_than_chance() -> None:
    row_D = np.array([0.6, 0.8])
    train = split("train", np.tile(row_D, (30, 1)), [0, 1, 1] * 10)
    judged = split("val", np.tile(row_D, (9, 1)), [0, 1, 1] * 3)
    found = evaluate(judged, train, k=30)
    assert found["knn_group/top1"] == found["knn_group/chance"] == pytest.approx(2 / 3)
    even = split("train", np.tile(row_D, (30, 1)), [0, 1] * 15)
    assert evaluate(judged, even, k=30)["knn_group/top1"] == 0


def test_devices_change_nothing() -> None:
    judged, train = problem(3, 150, 90)
    one = evaluate(judged, train)
    with jax.set_mesh(data_mesh()):
        assert evaluate(judged, train) == one


def test_before_the_projection_rows_are_made_unit() -> None:
    x = {"train": [[9, 0], [0, 1]], "val": [[1, 0.5], [1, 2]]}
    splits = {name: split(name, rows, [0, 1]) for name, rows in x.items()}
    settings = SimpleNamespace(source={"split": "train"})
    kept = {(name, "image", True): one for name, one in splits.items()}
    model: Any = SimpleNamespace(settings=settings, kept=kept)
    found = numbers(knn.evaluate(splits["val"], model, before_projection=True, k=1))
    assert found["knn_group_before/top1"] == 1
    np.testing.assert_array_equal(knn.unit(np.array([[0, 0], [3, 4]])), [[0, 0], [0.6, 0.8]])


@pytest.mark.parametrize("options", [dict(k=0), dict(temperature=0.0)])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    one = split("val", np.eye(2), [0, 1])
    with pytest.raises(InputError, match="k should be 1 or more"):
        evaluate(one, one, **options)
