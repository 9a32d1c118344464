"""The perceptual score against literal permutations, known reliance, and a real model."""

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
from mmcl.evals import permutation, removal
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh

THREE = ("image", "text", "sound")


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(
    z: dict[str, np.ndarray], groups: Any, concepts: Any = None, name: str = "new"
) -> Embedded:
    n = len(groups)
    concepts = np.arange(n) if concepts is None else concepts
    labels = {"concept": np.asarray(concepts, np.int32), "group": np.asarray(groups, np.int32)}
    return Embedded(
        split=name,
        z=z,
        labels=labels,
        shown={modality: np.zeros((n, 2, 2, 3), np.uint8) for modality in z},
        ids=[f"record {i}" for i in range(n)],
        label_names={label: [] for label in labels},
    )


def fake_model(fitting: Embedded) -> Any:
    """One that was trained on a split, which it can embed."""
    settings = SimpleNamespace(source={"split": fitting.split})
    return SimpleNamespace(settings=settings, embed=lambda name, modalities: fitting, kept={})


def random_split(
    rng: np.random.Generator, n: int, modalities: tuple[str, ...], name: str = "new"
) -> Embedded:
    groups = np.concatenate([[0], rng.integers(4, size=n - 1)])
    z = {
        m: unit(rng.normal(size=(n, 5)) + (i + 1) * np.eye(5)[groups])
        for i, m in enumerate(modalities)
    }
    return split(z, groups, groups * 2 + rng.integers(2, size=n), name)


def is_right(z_D: np.ndarray, answer: Any, answers: list[tuple[Any, np.ndarray]]) -> bool:
    right = max((float(z_D @ z) for value, z in answers if value == answer), default=-2.0)
    wrong = max((float(z_D @ z) for value, z in answers if value != answer), default=-2.0)
    hypothesis.assume(abs(right - wrong - TIE) > 1e-6)  # rounding decides
    return right - wrong > TIE


def literal(
    embedded: Embedded,
    those: list[str],
    label: str,
    answers: list[tuple[Any, np.ndarray]],
    permutations: int,
    seed: int,
) -> dict[str, float]:
    """Record after record, permutation after permutation."""
    n = len(embedded.ids)

    def accuracy(modality: str | None, order: Any) -> float:
        hits = []
        for i in range(n):
            rows = [embedded.z[m][order[i] if m == modality else i] for m in those]
            total = sum(row.astype(np.float64) for row in rows)
            z_D = total / np.linalg.norm(total)
            hits.append(is_right(z_D, embedded.labels[label][i], answers))
        return sum(hits) / n

    whole = accuracy(None, None)
    found = {"accuracy": whole, "count": n}
    for modality in those:
        rng = np.random.default_rng(seed)
        permuted = [accuracy(modality, rng.permutation(n)) for _ in range(permutations)]
        found[f"{modality}/permuted"] = float(np.mean(permuted))
        found[f"{modality}/drop"] = whole - float(np.mean(permuted))
        if whole:
            found[f"{modality}/score"] = 1 - float(np.mean(permuted)) / whole
    return found


def evaluate(embedded: Embedded, model: Any, predict: str, **options: Any) -> dict[str, float]:
    found = numbers(permutation.evaluate(embedded, model, predict=predict, **options))
    return {name.removeprefix(f"perceptual_{predict}/"): value for name, value in found.items()}


@hypothesis.given(
    st.sampled_from([("image", "text"), THREE]),
    st.sampled_from([1, 7, 20]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_equals_literal_permutations(
    modalities: tuple[str, ...], n: int, by_label: bool, seed: int
) -> None:
    hypothesis.assume(by_label or len(modalities) == 3)
    rng = np.random.default_rng(seed)
    embedded = random_split(rng, n, modalities)
    fitting = random_split(rng, 12, modalities, "train")
    predict = "group" if by_label else "text"
    found = evaluate(embedded, fake_model(fitting), predict, permutations=2, seed=seed)
    if by_label:
        rows: dict[int, list[np.ndarray]] = {}
        for i, group in enumerate(fitting.labels["group"]):
            total = sum(fitting.z[m][i].astype(np.float64) for m in modalities)
            rows.setdefault(int(group), []).append(total / np.linalg.norm(total))
        answers = [(g, sum(those) / np.linalg.norm(sum(those))) for g, those in rows.items()]
        largest = max(sorted(rows), key=lambda group: len(rows[group]))
        chance = np.mean(embedded.labels["group"] == largest)
        expected = literal(embedded, list(modalities), "group", answers, 2, seed)
    else:
        concept = embedded.labels["concept"]
        answers = list(zip(concept, embedded.z["text"].astype(np.float64)))
        chance = np.mean([np.mean(concept == one) for one in concept])
        expected = literal(embedded, ["image", "sound"], "concept", answers, 2, seed)
    assert found == pytest.approx(expected | {"chance": float(chance)})


def test_what_is_not_looked_at_scores_nothing_and_what_decides_all() -> None:
    """One modality tells the four groups apart; the other says the same of every record."""
    groups = np.arange(400) % 4
    z = {"image": np.eye(5)[groups], "text": np.eye(5)[np.full(400, 4)]}
    model = fake_model(split(z, groups, name="train"))
    found = evaluate(split(z, groups), model, "group", permutations=20)
    assert found["accuracy"] == 1 and found["chance"] == 0.25
    assert found["text/score"] == found["text/drop"] == 0
    assert found["image/score"] == pytest.approx(0.75, abs=0.02)  # the others are of its group


def test_two_that_are_needed_alike_score_alike() -> None:
    """The row and the column of a square's corner, which both are needed to find it."""
    square = unit([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])[np.arange(200) % 4]
    z = {"row": unit(square * [1, 1, 0, 0]), "column": unit(square * [0, 0, 1, 1]), "all": square}
    embedded = split(z, np.zeros(200), concepts=np.arange(200) % 4)
    found = evaluate(embedded, None, "all", permutations=20)
    assert found["accuracy"] == 1
    assert found["row/score"] == pytest.approx(0.5, abs=0.03)
    assert found["column/score"] == pytest.approx(0.5, abs=0.03)


def test_where_nothing_is_right_there_is_no_score() -> None:
    z = {m: np.tile(np.float32([0.6, 0.8]), (6, 1)) for m in ("image", "text")}
    model = fake_model(split(z, [0, 0, 1, 1, 2, 2], name="train"))
    found = evaluate(split(z, [0, 0, 1, 1, 2, 2]), model, "group")
    assert found["accuracy"] == found["image/drop"] == 0
    assert not any(name.endswith("score") for name in found)


def test_the_accuracy_is_that_of_removal_with_all_modalities() -> None:
    rng = np.random.default_rng(8)
    embedded = random_split(rng, 50, THREE)
    model = fake_model(random_split(rng, 50, THREE, "train"))
    full = numbers(removal.evaluate(embedded, model, label="group"))
    same = evaluate(embedded, model, "group")
    name = "image+text+sound"
    assert full[f"removal_group/{name}_on_{name}/accuracy"] == same["accuracy"]
    found = evaluate(embedded, model, "text")
    assert full["removal/image+sound_to_text/recall@1"] == found["accuracy"]


def test_seeds_differ_and_one_says_the_same_twice() -> None:
    rng = np.random.default_rng(9)
    embedded, model = random_split(rng, 60, THREE), fake_model(random_split(rng, 60, THREE, "t"))
    first = evaluate(embedded, model, "group", permutations=1)
    assert evaluate(embedded, model, "group", permutations=1) == first
    assert evaluate(embedded, model, "group", permutations=1, seed=1) != first


def test_figures_are_drawn_by_concept() -> None:
    rng = np.random.default_rng(10)
    embedded, model = random_split(rng, 9, THREE), fake_model(random_split(rng, 9, THREE, "t"))
    figures = permutation.evaluate(embedded, model)
    for name in ("accuracy", "image/drop", "text/permuted"):
        figure = figures[f"perceptual_group/{name}"]
        assert isinstance(figure, PerItem) and figure.cluster_N is not None
        assert figure.cluster_N.tolist() == embedded.labels["concept"].tolist()


def test_devices_change_nothing() -> None:
    rng = np.random.default_rng(11)
    embedded, model = random_split(rng, 157, THREE), fake_model(random_split(rng, 99, THREE, "t"))
    one = evaluate(embedded, model, "group"), evaluate(embedded, model, "text")
    with jax.set_mesh(data_mesh()):
        assert (evaluate(embedded, model, "group"), evaluate(embedded, model, "text")) == one


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(predict="grup"), "'new' has no label or modality 'grup'. Did you mean 'group'?"),
        (dict(predict="text"), "can be found with 'image' only, .*: predict a label"),
        (dict(permutations=0), "permutations=0 should be 1 or more"),
        (dict(fit="new"), "those of another split: give it as 'fit'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    z = {"image": np.eye(2), "text": np.eye(2)}
    with pytest.raises(InputError, match=message):
        permutation.evaluate(split(z, [0, 1]), fake_model(split(z, [0, 1], name="t")), **options)


def test_a_diverged_model_gets_no_numbers() -> None:
    good, bad = np.eye(2), np.full((2, 2), np.nan)
    model = fake_model(split({"image": good, "text": good}, [0, 1], name="train"))
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        evaluate(split({"image": good, "text": bad}, [0, 1]), model, "group")


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "permutation", "permutations": 2}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    task = "eval/unseen_artist/perceptual_group"
    for modality in ("image", "text"):
        left = found[f"{task}/accuracy"] - found[f"{task}/{modality}/drop"]
        assert left == pytest.approx(found[f"{task}/{modality}/permuted"])
