"""Naive Bayes with shared variances, beside logistic regression."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import naive_bayes
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.linear_probe import standardised


def split(name: str, x_NxF: Any, groups: Sequence[int] | np.ndarray) -> Embedded:
    n = len(groups)
    return Embedded(
        split=name,
        z={"image": np.asarray(x_NxF, np.float32)},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8)},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": list("abcdef")},
    )


def evaluate(judged: Embedded, train: Embedded, **options: Any) -> dict[str, float]:
    """Before the projection, where features are any."""
    kept = {(one.split, "image", True): one for one in (judged, train)}
    settings = SimpleNamespace(source={"split": "train"})
    model: Any = SimpleNamespace(settings=settings, kept=kept)
    options = {"before_projection": True, **options}
    return numbers(naive_bayes.evaluate(judged, model, **options))


def problem(
    seed: int, n: int, m: int, f: int = 3, classes: int = 3, scale: Any = 1.0
) -> tuple[Embedded, Embedded]:
    rng = np.random.default_rng(seed)
    mean_CxF = rng.normal(size=(classes, f))
    made = []
    for name, size in (("val", m), ("train", n)):
        class_N = np.concatenate([[0, 1], rng.integers(classes, size=size - 2)])
        made.append(split(name, scale * (mean_CxF[class_N] + rng.normal(size=(size, f))), class_N))
    return made[0], made[1]


def density(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


@hypothesis.given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_literal_densities(n: int, m: int, seed: int) -> None:
    """Classes' shares times the products of all features' densities."""
    judged, train = problem(seed, n, m)
    x, y = train.z["image"].astype(np.float64), train.labels["group"].tolist()
    mean = {c: x[[i for i in range(n) if y[i] == c]].mean(axis=0) for c in set(y)}
    variance = [
        max(sum((x[i, f] - mean[y[i]][f]) ** 2 for i in range(n)) / n, 1e-3 * x[:, f].var())
        for f in range(3)
    ]
    hits, close = [], False
    for row, right in zip(judged.z["image"].tolist(), judged.labels["group"].tolist()):
        score = {
            c: math.log(y.count(c) / n)
            - sum((row[f] - mean[c][f]) ** 2 / (2 * variance[f]) for f in range(3))
            for c in mean
        }
        first, second = sorted(score.values())[:-3:-1]
        close |= first - second < 1e-3 * max(1, abs(first))
        hits.append(max(score, key=lambda c: score[c]) == right)
    hypothesis.assume(not close)
    found = evaluate(judged, train)
    assert found["naive_bayes_group_before/top1"] == pytest.approx(np.mean(hits))
    assert found["naive_bayes_group_before/count"] == m


def test_scores_are_log_joint_densities() -> None:
    x_NxF, class_N = np.array([[-1.2, 0.5], [-0.8, -1.5], [1.4, 0.2], [0.6, 0.8]]), [0, 0, 1, 1]
    fitted = naive_bayes.naive_bayes(x_NxF, np.array(class_N), 2)
    score_C = np.array([0.3, 0.1]) @ fitted.W + fitted.b
    variance = [(0.04 + 0.04 + 0.16 + 0.16) / 4, (1 + 1 + 0.09 + 0.09) / 4]
    joint = [
        0.5 * density(0.3, mean[0], variance[0]) * density(0.1, mean[1], variance[1])
        for mean in ((-1, -0.5), (1, 0.5))
    ]
    assert score_C[1] - score_C[0] == pytest.approx(math.log(joint[1] / joint[0]))


def test_near_scikit_learn_where_variances_are_shared() -> None:
    bayes = pytest.importorskip("sklearn.naive_bayes", reason="scikit-learn is not installed")
    judged, train = problem(0, 20000, 2000, f=5)
    theirs = bayes.GaussianNB().fit(train.z["image"], train.labels["group"])
    expected = theirs.score(judged.z["image"], judged.labels["group"])
    found = evaluate(judged, train)["naive_bayes_group_before/top1"]
    assert found == pytest.approx(expected, abs=0.005) and found > 0.6


def test_scales_of_features_change_nothing() -> None:
    one = evaluate(*problem(1, 30, 60))
    assert evaluate(*problem(1, 30, 60, scale=np.array([100, 1, 1e-3]))) == one


def test_ahead_of_logistic_regression_where_examples_are_few() -> None:
    """Independent features of one variance, as naive Bayes has it: P081's case."""
    rng = np.random.default_rng(0)
    mean_CxF = 0.35 * rng.choice([-1, 1], size=(2, 60))
    class_N = np.arange(1000) % 2
    x_NxF = mean_CxF[class_N] + rng.normal(size=(1000, 60)) * rng.uniform(0.3, 3, size=60)
    judged, train = split("val", x_NxF[:400], class_N[:400]), split("train", x_NxF, class_N)
    found = evaluate(judged, train, shots=[5, 32])
    name = "naive_bayes_group_before"
    assert found[f"{name}/top1@32"] > found[f"{name}/top1@5"] + 0.05
    assert found[f"{name}/top1@32"] > found[f"{name}/logistic_top1@32"] + 0.02
    assert found[f"{name}/top1"] > found[f"{name}/top1@32"]


def test_one_example_a_class_is_the_nearest_mean() -> None:
    x_NxF = np.array([[0, 0], [2, 10], [5, 3]])
    standard_NxF, point_1xF = standardised(x_NxF, np.array([[2, 4]]))
    fitted = naive_bayes.naive_bayes(standard_NxF, np.arange(3), 3)
    nearest = np.argmin(np.linalg.norm(standard_NxF - point_1xF, axis=1))
    assert np.argmax(point_1xF @ fitted.W + fitted.b) == nearest


def test_unseen_classes_are_wrong_and_a_collapsed_model_is_no_better_than_chance() -> None:
    train = split("train", [[0.6, 0.8]] * 4, [0, 0, 0, 1])
    judged = split("val", [[0.6, 0.8]] * 4, [0, 0, 1, 2])
    found = evaluate(judged, train, before_projection=True)
    assert found == {
        "naive_bayes_group_before/top1": 0.5,
        "naive_bayes_group_before/mean_per_class": pytest.approx(1 / 3),
        "naive_bayes_group_before/chance": 0.5,
        "naive_bayes_group_before/count": 4,
    }


def test_more_shots_than_there_are_is_refused() -> None:
    one, other = split("val", np.eye(3)[:2], [0, 1]), split("train", np.eye(3), [0, 1, 1])
    with pytest.raises(InputError, match="shots=3, .* more than 2 examples"):
        evaluate(one, other, shots=[3])
