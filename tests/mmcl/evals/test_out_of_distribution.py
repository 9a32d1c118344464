"""Scores of the known and the unknown against all pairs, scikit-learn, and a real model."""

import math
from types import SimpleNamespace
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
from mmcl.evals import out_of_distribution
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.mesh import data_mesh

NAMES = ["sea_animals", "tools", "flags", "faces"]


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(name: str, z_NxD: Any, groups: Any) -> Embedded:
    n = len(groups)
    return Embedded(
        split=name,
        z={"image": np.asarray(z_NxD, np.float32)},
        labels={
            "group": np.asarray(groups, np.int32),
            "concept": np.arange(n, dtype=np.int32) // 2,
        },
        shown={"image": list(np.zeros((n, 2, 2, 3), np.uint8))},
        ids=[f"{name} {i}" for i in range(n)],
        label_names={"group": NAMES},
    )


def model(other: Embedded, z_CxD: Any) -> Any:
    """Knows the words of the classes, by name."""
    words = dict(zip((name.replace("_", " ") for name in NAMES), np.asarray(z_CxD, np.float32)))
    return SimpleNamespace(
        encode=lambda _, prompts: np.stack([words[prompt] for prompt in prompts]),
        embed=lambda name, modalities: {(other.split, ("image",)): other}[name, tuple(modalities)],
    )


def evaluate(known: Embedded, other: Embedded, z_CxD: Any, **options: Any) -> dict[str, float]:
    figures = out_of_distribution.evaluate(known, model(other, z_CxD), out=other.split, **options)
    found = numbers(figures)
    return {name.removeprefix("out_of_distribution/far/"): one for name, one in found.items()}


def problem(seed: int, n: int, m: int) -> tuple[Embedded, Embedded, np.ndarray]:
    rng = np.random.default_rng(seed)
    z_CxD = unit(rng.normal(size=(4, 6)))
    class_N = np.concatenate([[0, 1], rng.integers(3, size=n - 2)])
    known = split("near", unit(z_CxD[class_N] + 0.4 * rng.normal(size=(n, 6))), class_N)
    return known, split("far", unit(rng.normal(size=(m, 6))), np.full(m, 3)), z_CxD


@hypothesis.given(
    st.integers(2, 60), st.integers(1, 60), st.sampled_from([0.02, 1.0]), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_equals_all_pairs(n: int, m: int, temperature: float, seed: int) -> None:
    known, other, z_CxD = problem(seed, n, m)
    classes = sorted(set(known.labels["group"].tolist()))

    def scores(z_D: np.ndarray) -> tuple[float, float]:
        cosine = [sum(float(a) * float(b) for a, b in zip(z_D, z_CxD[c])) for c in classes]
        powers = [math.exp(s / temperature) for s in cosine]
        return max(cosine), max(powers) / sum(powers)

    found = evaluate(known, other, z_CxD, temperature=temperature)
    for i, name in enumerate(("cosine", "softmax")):
        inside = [scores(z_D)[i] for z_D in known.z["image"]]
        outside = [scores(z_D)[i] for z_D in other.z["image"]]
        apart = [abs(a - b) for a in inside for b in outside]
        hypothesis.assume(min(apart) > 2e-6)  # rounding decides
        wins = [(a > b) + (a == b) / 2 for a in inside for b in outside]
        assert found[f"{name}_auroc"] == pytest.approx(sum(wins) / len(wins))
        t = max(t for t in inside if np.mean([a >= t for a in inside]) >= 0.95 - 1e-12)
        assert found[f"{name}_fpr95"] == pytest.approx(np.mean([b >= t for b in outside]))
    assert found["in"] == n and found["out"] == m and found["classes"] == len(classes)


@hypothesis.given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_scikit_learn(n: int, steps: int, seed: int) -> None:
    """With many ties."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    score_N, score_M = rng.integers(steps, size=n) + 3.0, rng.integers(steps, size=40) + 0.0
    right = np.repeat([1, 0], [n, 40])
    both = np.concatenate([score_N, score_M])
    auroc = float(np.mean(out_of_distribution.beaten(score_N, score_M)))
    assert auroc == pytest.approx(metrics.roc_auc_score(right, both))
    fpr, tpr, _ = metrics.roc_curve(right, both, drop_intermediate=False)
    t = out_of_distribution.threshold(score_N)
    assert np.mean(score_M >= t) == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min())


def test_known_values() -> None:
    score_N, score_M = np.arange(1.0, 21.0), np.array([0.0, 2.0, 2.5, 30.0])
    assert out_of_distribution.threshold(score_N) == 2  # 19 of 20 reach it
    beaten_N = out_of_distribution.beaten(score_N, score_M)
    assert beaten_N[:4].tolist() == [0.25, 0.375, 0.75, 0.75]


def test_only_names_of_known_classes_count() -> None:
    """The unknown ones lie where the name of their class does, which is not asked for."""
    axes = np.eye(4)
    known = split("near", axes[[0, 1, 2, 0]], [0, 1, 2, 0])
    found = evaluate(known, split("far", axes[[3, 3]], [3, 3]), axes)
    assert found["cosine_auroc"] == found["softmax_auroc"] == 1
    assert found["cosine_fpr95"] == found["softmax_fpr95"] == 0
    assert found["classes"] == 3


def test_a_collapsed_model_tells_nothing() -> None:
    z_NxD = unit(np.ones((20, 4)))
    known = split("near", z_NxD, np.arange(20) % 3)
    found = evaluate(known, split("far", z_NxD[:9], np.full(9, 3)), z_NxD[:4])
    assert found["cosine_auroc"] == found["auroc_chance"] == 0.5
    assert found["cosine_fpr95"] == 1


def test_concepts_are_the_clusters() -> None:
    known, other, z_CxD = problem(0, 6, 4)
    figures = out_of_distribution.evaluate(known, model(other, z_CxD), out="far")
    auroc = figures["out_of_distribution/far/cosine_auroc"]
    fpr = figures["out_of_distribution/far/cosine_fpr95"]
    assert isinstance(auroc, PerItem) and isinstance(fpr, PerItem)
    assert auroc.cluster_N is not None and auroc.cluster_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert fpr.cluster_N is not None and fpr.cluster_N.tolist() == [0, 0, 1, 1]


def test_devices_change_nothing() -> None:
    known, other, z_CxD = problem(1, 150, 90)
    one = evaluate(known, other, z_CxD)
    with jax.set_mesh(data_mesh()):
        assert evaluate(known, other, z_CxD) == pytest.approx(one, abs=1e-3)


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    section = {"name": "out_of_distribution", "out": "unseen_concept"}
    tiny_config["eval"]["evaluators"] = [section]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        real = stage.model(stage.init())
    found = real.evaluate(real.embed("unseen_artist"))
    name = "eval/unseen_artist/out_of_distribution/unseen_concept"
    assert 0 <= found[f"{name}/cosine_auroc"] <= 1 and 0 <= found[f"{name}/softmax_fpr95"] <= 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(temperature=0.0), "temperature=0.0 should be above 0"),
        (dict(out="near"), "'near' is the judged split itself"),
        (dict(label="groups"), "label 'groups' have no names: only those of"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(templates=["a picture"]), "must each hold '{}'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    known, other, z_CxD = problem(2, 4, 4)
    with pytest.raises(InputError) as error:
        out_of_distribution.evaluate(known, model(other, z_CxD), **{"out": "far", **options})
    assert message in str(error.value)


def test_one_class_is_too_few() -> None:
    known = split("near", np.eye(4), [1, 1, 1, 1])
    with pytest.raises(InputError, match="all items of 'near' have one 'group'"):
        evaluate(known, split("far", np.eye(4), [3] * 4), np.eye(4))


def test_a_diverged_model_gets_no_numbers() -> None:
    known, other, z_CxD = problem(3, 4, 4)
    with pytest.raises(InputError, match="4 of 4 'image' .* diverged"):
        evaluate(known, split("far", np.full((4, 6), np.nan), [3] * 4), z_CxD)
