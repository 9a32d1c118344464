"""Few examples: how they are drawn, and what is made of them."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import few_shot
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import number, numbers


def split(name: str, z_NxD: Any, groups: Sequence[int] | np.ndarray) -> Embedded:
    n = len(groups)
    z_NxD = np.asarray(z_NxD, np.float32)
    return Embedded(
        split=name,
        z={"image": z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8)},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": list("abcdef")},
    )


def figures(judged: Embedded, train: Embedded, **options: Any) -> Any:
    settings = SimpleNamespace(source={"split": "train"})
    model: Any = SimpleNamespace(embed=lambda *_: train, settings=settings, kept={})
    return few_shot.evaluate(judged, model, **options)


@hypothesis.given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 6), st.integers(0, 1000)
)
def test_so_many_of_each_class_are_drawn(classes: list[int], shots: int, seed: int) -> None:
    class_N = np.array(classes)
    few = few_shot.drawn(class_N, shots, np.random.default_rng(seed))
    assert len(set(few.tolist())) == len(few)
    for c in range(4):
        assert (class_N[few] == c).sum() == min(shots, classes.count(c))
    more = few_shot.drawn(class_N, shots + 1, np.random.default_rng(seed))
    assert set(few.tolist()) <= set(more.tolist())


def test_every_item_is_drawn_as_often() -> None:
    class_N = np.array([0, 1, 1, 0, 1, 1])
    times_N = np.zeros(6)
    for seed in range(2000):
        times_N[few_shot.drawn(class_N, 1, np.random.default_rng(seed))] += 1
    np.testing.assert_allclose(times_N / 2000, [0.5, 0.25, 0.25, 0.5, 0.25, 0.25], atol=0.04)


def test_each_items_figure_is_its_share_of_draws() -> None:
    """Against a literal fit of each draw by the normal equations with a column of ones."""
    rng = np.random.default_rng(1)
    class_N, class_M = np.arange(30) % 3, np.arange(20) % 3
    axes = rng.normal(size=(3, 4))
    train = split("train", axes[class_N] + rng.normal(size=(30, 4)), class_N)
    judged = split("val", axes[class_M] + rng.normal(size=(20, 4)), class_M)
    found = figures(judged, train, shots=[2], draws=4, l2=0.3)["few_shot_group/top1@2"]
    hits = np.zeros(20)
    for draw in range(4):
        few = few_shot.drawn(class_N, 2, np.random.default_rng((0, draw)))
        x = train.z["image"][few].astype(np.float64)
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        x = np.hstack([(x - mean) / deviation, np.ones((6, 1))])
        penalty = np.diag([0.3] * 4 + [0])
        map_ = np.linalg.inv(x.T @ x / 6 + penalty) @ (x.T @ np.eye(3)[class_N[few]] / 6)
        for i, row in enumerate(judged.z["image"].astype(np.float64)):
            hits[i] += np.argmax([*((row - mean) / deviation), 1] @ map_) == class_M[i]
    np.testing.assert_allclose(found.value_N, hits / 4)
    np.testing.assert_array_equal(found.cluster_N, judged.labels["concept"])


def test_more_examples_help_and_unseen_classes_are_wrong() -> None:
    rng = np.random.default_rng(2)
    axes = rng.normal(size=(4, 8))
    class_N, class_M = np.arange(150) % 3, np.arange(120) % 4
    train = split("train", axes[class_N] + rng.normal(size=(150, 8)), class_N)
    judged = split("val", axes[class_M] + rng.normal(size=(120, 8)), class_M)
    found = numbers(figures(judged, train, shots=(1, 5, 50)))
    one, five, fifty = (found[f"few_shot_group/top1@{n}"] for n in (1, 5, 50))
    assert found["few_shot_group/chance"] == 0.25 < one < five < fifty <= 0.75
    assert found["few_shot_group/count"] == 120


def test_a_collapsed_model_names_nothing() -> None:
    one = {name: split(name, [[0.6, 0.8]] * 4, [0, 1, 0, 1]) for name in ("train", "val")}
    assert number(figures(one["val"], one["train"], shots=[2])["few_shot_group/top1@2"]) == 0


def test_seeds_draw_anew_and_equal_ones_the_same() -> None:
    rng = np.random.default_rng(3)
    train = split("train", rng.normal(size=(30, 4)), np.arange(30) % 3)
    judged = split("val", rng.normal(size=(30, 4)), np.arange(30) % 3)
    first, again, other = (
        number(figures(judged, train, shots=[2], seed=seed)["few_shot_group/top1@2"])
        for seed in (0, 0, 1)
    )
    assert first == again != other and math.isfinite(first)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(shots=[0]), "shots=0"),
        (dict(shots=[1, 4]), "shots=4, .* more than 2 examples"),
        (dict(draws=0), "draws=0"),
        (dict(l2=0.0), "l2=0.0 should be more than 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    one, other = split("val", np.eye(3)[:2], [0, 1]), split("train", np.eye(3), [0, 1, 1])
    with pytest.raises(InputError, match=message):
        figures(one, other, **{"shots": [1], **options})
