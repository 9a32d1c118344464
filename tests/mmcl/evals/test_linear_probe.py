"""Linear probes: the optimum they are at, and what their figures say."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import linear_probe
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh


def problem(seed: int, n: int = 50, f: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians that overlap, standardised."""
    rng = np.random.default_rng(seed)
    class_N = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    x_NxF = rng.normal(size=(classes, f))[class_N] + rng.normal(size=(n, f))
    return linear_probe.standardised(x_NxF.astype(np.float32))[0], class_N


def gradient(
    fitted: linear_probe.Linear, x_NxF: np.ndarray, class_N: np.ndarray, l2: float, method: str
) -> float:
    """The largest entry of the loss's gradient, summed item by item."""
    W, b = fitted.W.astype(np.float64), fitted.b.astype(np.float64)
    of_W, of_b = l2 * W, np.zeros_like(b)
    for x_F, right in zip(x_NxF.astype(np.float64), class_N):
        score_C = x_F @ W + b
        if method == "logistic":
            score_C = np.exp(score_C) / np.exp(score_C).sum()
        score_C[right] -= 1
        of_W = of_W + np.outer(x_F, score_C) / len(x_NxF)
        of_b = of_b + score_C / len(x_NxF)
    return max(np.abs(of_W).max(), np.abs(of_b).max())


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 1e-2, 10]))
@hypothesis.settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("n, f", [(50, 6), (20, 30)])
@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_the_gradient_is_zero(method: str, n: int, f: int, seed: int, l2: float) -> None:
    x_NxF, class_N = problem(seed, n, f)
    fitted = getattr(linear_probe, method)(x_NxF, class_N, 3, l2)
    limit = {"logistic": 3e-5, "ridge": 1e-6}[
        method
    ]  # float32, where weights may be as large as 30
    assert gradient(fitted, x_NxF, class_N, l2, method) < limit


def test_equals_scikit_learn() -> None:
    models = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x_NxF, class_N = problem(0)
    n, l2 = len(x_NxF), 1e-2
    x64_NxF = x_NxF.astype(np.float64)
    theirs = models.LogisticRegression(C=1 / (n * l2), tol=1e-10).fit(x64_NxF, class_N)
    ours = linear_probe.logistic(x_NxF, class_N, 3, l2)
    np.testing.assert_allclose(ours.W.T, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.b, theirs.intercept_, atol=1e-4)
    theirs = models.Ridge(alpha=n * l2).fit(x64_NxF, np.eye(3)[class_N])
    ours = linear_probe.ridge(x_NxF, class_N, 3, l2)
    np.testing.assert_allclose(ours.W.T, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.b, theirs.intercept_, atol=1e-6)


def test_devices_change_nothing() -> None:
    x_NxF, class_N = problem(1)
    one = linear_probe.logistic(x_NxF, class_N, 3, 1e-2)
    with jax.set_mesh(data_mesh()):
        eight = linear_probe.logistic(x_NxF, class_N, 3, 1e-2)
    np.testing.assert_allclose(eight.W, one.W, atol=1e-4)
    np.testing.assert_allclose(eight.b, one.b, atol=1e-4)


def test_features_are_standardised_by_what_is_fitted_to() -> None:
    fitting = np.array([[1, 5, 3e8], [3, 5, 5e8]], np.float32)
    found, other = linear_probe.standardised(fitting, np.array([[4, 9, 4e8]], np.float32))
    np.testing.assert_allclose(found, [[-1, 0, -1], [1, 0, 1]])
    np.testing.assert_allclose(other, [[2, 0, 0]])


def split(name: str, z_NxD: Any, groups: Sequence[int]) -> Embedded:
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
    return numbers(linear_probe.evaluate(judged, model, **options))


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_classes_apart_are_told_and_unseen_ones_are_wrong(method: str) -> None:
    axes = np.eye(3)
    train = split("train", axes[[0, 0, 0, 1, 2]], [1, 1, 1, 3, 5])
    judged = split("val", axes[[0, 1, 2, 2, 0]], [1, 3, 5, 1, 4])
    found = evaluate(judged, train, method=method)
    assert found == pytest.approx(
        {
            "linear_probe_group/top1": 3 / 5,
            "linear_probe_group/mean_per_class": (1 / 2 + 1 + 0 + 1) / 4,
            "linear_probe_group/chance": 2 / 5,  # always class 1
            "linear_probe_group/count": 5,
        }
    )


@pytest.mark.parametrize("method", ["logistic", "ridge"])
@pytest.mark.parametrize("groups, top1", [([0, 0, 0, 1], 0.75), ([0, 1], 0)])
def test_a_collapsed_model_names_the_largest_class_or_none(
    method: str, groups: list[int], top1: float
) -> None:
    row_D = np.array([0.6, 0.8])
    train = split("train", np.tile(row_D, (len(groups), 1)), groups)
    judged = split("val", np.tile(row_D, (4, 1)), [0, 0, 0, 1])
    found = evaluate(judged, train, method=method)
    assert found["linear_probe_group/top1"] == top1
    assert found["linear_probe_group/chance"] == 0.75


def test_before_the_projection_scales_of_features_change_nothing() -> None:
    rng = np.random.default_rng(4)
    group_N = np.arange(60) % 3
    x_NxF = rng.normal(size=(3, 5))[group_N] + rng.normal(size=(60, 5))
    found = []
    for scale in (1, np.array([1e3, 1e-3, 1, 10, 0.1])):
        splits = {
            "train": split("train", x_NxF[:30] * scale, group_N[:30]),
            "val": split("val", x_NxF[30:] * scale, group_N[30:]),
        }
        kept = {(name, "image", True): one for name, one in splits.items()}
        model: Any = SimpleNamespace(settings=SimpleNamespace(source={"split": "train"}), kept=kept)
        found.append(
            numbers(linear_probe.evaluate(splits["val"], model, before_projection=True, l2=0.3))
        )
    assert found[0] == found[1] and found[0]["linear_probe_group_before/top1"] > 0.6


def test_a_probe_without_penalty_is_refused() -> None:
    one = split("val", np.eye(2), [0, 1])
    with pytest.raises(InputError, match="l2=0 should be more than 0"):
        evaluate(one, one, l2=0)
