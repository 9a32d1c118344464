"""Few-shot episodes, with prototypes as they are and shifted onto the queries."""

import math
from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import episodes
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.evals.knn import unit


def split(z_NxD: Any, groups: Sequence[int] | np.ndarray) -> Embedded:
    n = len(groups)
    return Embedded(
        split="val",
        z={"image": unit(np.asarray(z_NxD)).astype(np.float32)},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8)},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": list("abcdef")},
    )


def evaluate(embedded: Embedded, **options: Any) -> dict[str, float]:
    nothing: Any = None
    return numbers(episodes.evaluate(embedded, nothing, **options))


def clouds(seed: int, n: int, classes: int = 6, noise: float = 0.5) -> Embedded:
    rng = np.random.default_rng(seed)
    class_N = np.arange(n) % classes
    axes = unit(rng.normal(size=(classes, 16)))
    return split(axes[class_N] + noise * rng.normal(size=(n, 16)), class_N)


def literal_plan(cost: list[list[float]], epsilon: float, times: int) -> list[list[float]]:
    """Sinkhorn's scalings u, v of the kernel."""
    kernel = [[math.exp(-c / epsilon) for c in row] for row in cost]
    w, q = len(cost), len(cost[0])
    u, v = [1.0] * w, [1.0] * q
    for _ in range(times):
        u = [1 / w / sum(kernel[i][j] * v[j] for j in range(q)) for i in range(w)]
        v = [1 / q / sum(kernel[i][j] * u[i] for i in range(w)) for j in range(q)]
    return [[u[i] * kernel[i][j] * v[j] for j in range(q)] for i in range(w)]


@hypothesis.given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=20, deadline=None)
def test_a_plan_equals_literal_scalings(ways: int, queries: int, seed: int) -> None:
    cost_WxQ = np.random.default_rng(seed).uniform(0, 2, (ways, ways * queries))
    plan_WxQ = episodes.transport(cost_WxQ, 0.5)
    np.testing.assert_allclose(plan_WxQ.sum(axis=0), 1 / (ways * queries))
    expected = literal_plan(cost_WxQ.tolist(), 0.5, 300)
    np.testing.assert_allclose(plan_WxQ, expected, atol=5e-3 / (ways * queries))


def test_with_little_softening_a_plan_costs_as_little_as_an_assignment() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    cost_WxW = np.random.default_rng(0).uniform(0, 2, (5, 5))
    plan_WxW = episodes.transport(cost_WxW, 0.01)
    row, column = optimize.linear_sum_assignment(cost_WxW)
    assert (plan_WxW * cost_WxW).sum() == pytest.approx(cost_WxW[row, column].mean(), abs=0.01)


def test_shifted_prototypes_are_what_the_transport_brings() -> None:
    rng = np.random.default_rng(1)
    p, q = unit(rng.normal(size=(3, 4))), unit(rng.normal(size=(6, 4)))
    found = episodes.aligned(p, q, 0.5)
    for _ in range(episodes.ALIGNMENTS):
        cost = [[math.dist(a, b) for b in q.tolist()] for a in p.tolist()]
        plan = np.array(literal_plan(cost, 0.5, 300))
        p = unit(plan @ q / plan.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, p, atol=5e-3)


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@hypothesis.settings(max_examples=20, deadline=None)
def test_the_nearest_prototype_equals_literal_loops(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    support, query = unit(rng.normal(size=(3, k, 5))), unit(rng.normal(size=(3, 4, 5)))
    prototypes = [[sum(float(row[d]) for row in rows) / k for d in range(5)] for rows in support]
    hits = []
    for c in range(3):
        for row in query[c].tolist():
            score = [sum(a * b for a, b in zip(row, p)) / math.hypot(*p) for p in prototypes]
            hits.append(max(range(3), key=lambda way: score[way]) == c)
    plain, _ = episodes.accuracies(support, query, 0.1)
    assert plain == pytest.approx(np.mean(hits))


def test_unit_rows_of_a_stack() -> None:
    """Along the last axis, whatever comes before."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_allclose(np.linalg.norm(unit(x), axis=-1), 1)


def test_prototypes_that_lie_off_are_shifted_onto_their_queries() -> None:
    """Both lie nearer to one class's queries, and one of them much nearer."""

    def at(*degrees: float) -> np.ndarray:
        angle = np.radians(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    support = np.stack([at(10.0), at(-30.0)])
    query = np.stack([at(88.0, 90.0, 92.0), at(-4.0, 0.0, 4.0)])
    plain, shifted = episodes.accuracies(support, query, 0.1)
    assert plain < 1 == shifted


def test_alignment_helps_where_examples_are_few() -> None:
    found = evaluate(clouds(0, 240, noise=0.25), episodes=60)
    name = "episodes_group"
    assert found[f"{name}/chance"] == 0.2 and found[f"{name}/classes"] == 6
    assert 0.3 < found[f"{name}/top1@1"] < found[f"{name}/top1@5"]
    assert found[f"{name}/top1@1"] + 0.05 < found[f"{name}/aligned_top1@1"]
    gains = [found[f"{name}/aligned_top1@{k}"] - found[f"{name}/top1@{k}"] for k in (1, 5)]
    assert gains[0] > gains[1]


def test_examples_are_no_queries() -> None:
    """Every item has an axis of its own, so that only itself among the examples would name it."""
    found = evaluate(
        split(np.eye(40), np.arange(40) % 2), ways=2, shots=[4], queries=16, episodes=5
    )
    assert found["episodes_group/top1@4"] == 0


def test_classes_with_too_few_items_are_left_out() -> None:
    groups = [0] * 20 + [1] * 20 + [2] * 19
    z_NxD = np.eye(3)[groups]
    found = evaluate(split(z_NxD, groups), ways=2, episodes=10)
    assert found["episodes_group/classes"] == 2 and found["episodes_group/top1@5"] == 1
    with pytest.raises(InputError, match="2 values of 'group' in 'val' have the 20 items .* it ta"):
        evaluate(split(z_NxD, groups), ways=3)


def test_a_collapsed_model_names_nothing() -> None:
    groups = np.arange(60) % 3
    found = evaluate(split(np.tile([0.6, 0.8], (60, 1)), groups), ways=3, episodes=4)
    for key in ("top1@1", "aligned_top1@1", "top1@5", "aligned_top1@5"):
        assert found[f"episodes_group/{key}"] <= 1 / 3


def test_equal_seeds_draw_the_same() -> None:
    embedded = clouds(1, 120, classes=5)
    first, again, other = (evaluate(embedded, episodes=5, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(ways=1), "2 ways or more"),
        (dict(shots=[1, 0]), "1 or more of shots"),
        (dict(queries=0), "1 or more of shots"),
        (dict(epsilon=0.0), "epsilon above 0"),
        (dict(modality="imag"), "no modality 'imag'. Did you mean 'image'"),
        (dict(label="kind"), "no label 'kind'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(clouds(2, 12), **options)
