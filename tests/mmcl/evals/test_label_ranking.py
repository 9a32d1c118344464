"""Rankings of all labels against loops, label by label."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.sources.labelled import Labels
from mmcl.evals import label_ranking
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Figures of pictures and labels: `own[i]` are the numbers of picture i's."""

    def judged(z_NxD: Any, z_CxD: Any, own: list[Any], **options: Any) -> Any:
        pool = tuple(f"tag {i}" for i in range(len(z_CxD)))
        values = [Labels(tuple(one), pool) if isinstance(one, list) else one for one in own]
        encoded: list[str] = []

        def encode(modality: str, labels: Any) -> np.ndarray:
            assert modality == options.get("label", "label")
            encoded.extend(labels)
            return unit(z_CxD)

        def raw_values(embedded: Embedded, model: Any, entry: str) -> list[Any]:
            assert entry == options.get("label", "label")
            return values

        monkeypatch.setattr(label_ranking, "raw_values", raw_values)
        n = len(z_NxD)
        embedded = Embedded(
            split="test",
            z={"image": unit(z_NxD)},
            labels={"concept": 100 + np.arange(n, dtype=np.int32) // 2},
            shown={"image": np.zeros((n, 2, 2, 3), np.uint8)},
            ids=[f"r{i}" for i in range(n)],
            label_names={},
        )
        model: Any = SimpleNamespace(encode=encode)
        found = label_ranking.evaluate(embedded, model, **options)
        assert encoded == list(pool)  # each once
        return {name.removeprefix("label_ranking/image/"): it for name, it in found.items()}

    return judged


def ranked_one_by_one(score_C: list[float], own: list[int], most: int) -> list[bool]:
    """Whether the label at each place is right, wrong ones first among equals."""
    places = list(range(len(score_C)))
    hits = [False] * max(most, len(score_C))
    beyond = sorted(score_C, reverse=True)[most] if len(score_C) > most else -math.inf
    for label in own:
        ahead = 0
        for other in places:
            if other in own:
                ahead += (-score_C[other], other) < (-score_C[label], label)
            else:
                ahead += score_C[other] > score_C[label] - TIE
        if score_C[label] > beyond + TIE:
            hits[ahead] = True
    return hits[:most]


def measured(hits: list[bool], right: int, k: int) -> tuple[float, float, float]:
    precision = sum(hits[:k]) / k
    recall = sum(hits[:k]) / right
    gained = sum(1 / math.log2(i + 1) for i in range(1, k + 1) if hits[i - 1])
    best = sum(1 / math.log2(i + 1) for i in range(1, min(k, right) + 1))
    return precision, recall, gained / best


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5, 9]))
@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_equals_loops_over_all_labels(judged: Any, seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 7)), int(rng.integers(1, 13))
    z_NxD, z_CxD = unit(rng.normal(size=(n, 3))), unit(rng.normal(size=(c, 3)))
    if seed % 2:  # some labels are alike: they tie
        z_CxD = z_CxD[rng.integers(c, size=c)]
    own = [rng.choice(c, rng.integers(1, c + 1), replace=False).tolist() for _ in range(n)]
    score_NxC = z_NxD.astype(np.float64) @ z_CxD.T.astype(np.float64)
    gaps = np.abs(score_NxC[:, :, None] - score_NxC[:, None, :])
    hypothesis.assume(not ((gaps > 1e-12) & (gaps < 3e-6)).any())  # rounding decides
    found = judged(z_NxD, z_CxD, own, at=[1, most])
    told = numbers(found)
    hits = [ranked_one_by_one(score_NxC[i].tolist(), own[i], most) for i in range(n)]
    every = [measured(hits[i], len(own[i]), most) for i in range(n)]
    for name, values in zip(("precision", "recall", "ndcg"), zip(*every)):
        np.testing.assert_allclose(found[f"{name}@{most}"].value_N, values, atol=1e-12)
        assert told[f"{name}@{most}"] == pytest.approx(np.mean(values))
    assert found["precision@1"].value_N.tolist() == [one[0] for one in hits]
    assert told["queries"] == n and told["labels"] == c


def test_by_hand(judged: Any) -> None:
    """In the order of their scores the labels are 2, 0, 1, 3; 0 and 3 are right."""
    z = [[math.cos(a), math.sin(a)] for a in (0.2, 0.3, 0.1, 0.4)]
    told = numbers(judged([[1, 0]], z, [[3, 0]], at=[1, 3]))
    assert told["precision@1"] == 0 and told["precision@3"] == pytest.approx(1 / 3)
    assert told["recall@3"] == told["precision_chance"] == 1 / 2
    assert told["ndcg@3"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert "recall@1" not in told


@pytest.mark.parametrize("right, most", [([0], 2), ([1, 3], 3), ([0, 1, 2], 2), ([2, 4], 7)])
def test_chance_is_the_mean_over_all_orders(judged: Any, right: list[int], most: int) -> None:
    told = numbers(judged([[1, 0]], np.eye(5, 2) + 1, [right], at=[most]))
    orders = list(itertools.permutations(range(5)))
    every = [
        measured([i in right for i in order] + [False] * 2, len(right), most) for order in orders
    ]
    _, recall, ndcg = (np.mean(values) for values in zip(*every))
    assert told[f"recall_chance@{most}"] == pytest.approx(recall)
    assert told[f"ndcg_chance@{most}"] == pytest.approx(ndcg)
    assert told["precision_chance"] == np.mean([order[0] in right for order in orders])


def test_a_collapsed_model_finds_nothing(judged: Any) -> None:
    told = numbers(judged([[1, 0]] * 3, [[1, 0]] * 9, [[0], [0, 1, 2], list(range(8))]))
    assert told["precision@1"] == told["precision@5"] == told["recall@5"] == told["ndcg@5"] == 0


def test_a_model_that_knows_all(judged: Any) -> None:
    z_CxD = np.eye(6)
    z_NxD = [z_CxD[0] + z_CxD[1], z_CxD[5]]
    told = numbers(judged(z_NxD, z_CxD, [[1, 0], [5]]))
    assert told["precision@1"] == told["recall@5"] == told["ndcg@5"] == 1
    assert told["precision@3"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_devices_change_nothing(judged: Any) -> None:
    rng = np.random.default_rng(5)
    z_CxD = rng.normal(size=(90, 8))
    own = [rng.choice(90, 4, replace=False).tolist() for _ in range(40)]
    z_NxD = np.stack([z_CxD[one].sum(axis=0) + rng.normal(size=8) for one in own])
    one = numbers(judged(z_NxD, z_CxD, own))
    with jax.set_mesh(data_mesh()):
        assert numbers(judged(z_NxD, z_CxD, own)) == one
    assert 0.1 < one["precision@1"] < 1


def test_figures_have_intervals(judged: Any) -> None:
    found = judged([[1, 0]], np.eye(2), [[0]])
    assert found["precision@1"].cluster_N.tolist() == [100]
    with_items = {name for name, figure in found.items() if isinstance(figure, PerItem)}
    assert with_items == {f"precision@{k}" for k in (1, 3, 5)} | {"recall@5", "ndcg@5"}


@pytest.mark.parametrize(
    "own, options, message",
    [
        ([[0]], dict(modality="imag"), "no modality 'imag' in 'test'. Did you mean 'image'"),
        ([[0]], dict(at=[0]), "at=.0.: give numbers of labels"),
        ([[0]], dict(at=[]), "at=..: give numbers of labels"),
        ([None], {}, "'label' of 'r0' is a NoneType, no list of labels of a pool"),
        ([{"en": "x"}], {}, "'label' of 'r0' is a dict, no list of labels of a pool"),
    ],
)
def test_what_is_wrong_is_said(judged: Any, own: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judged([[1, 0]], np.eye(2), own, **options)
