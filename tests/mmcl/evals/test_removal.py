"""Removal of modalities against literal loops, plain retrieval, and a real model."""

import itertools
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
from mmcl.evals import removal, retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh

THREE = ("image", "text", "sound")


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(
    z: dict[str, np.ndarray],
    concepts: Any,
    groups: Any = None,
    words: Any = None,
    name: str = "new",
) -> Embedded:
    """Each record an item, but of modalities with words, which records may share."""
    n = len(concepts)
    pictures = np.zeros((n, 2, 2, 3), np.uint8)
    labels = {"concept": np.asarray(concepts, np.int32)}
    if groups is not None:
        labels["group"] = np.asarray(groups, np.int32)
    return Embedded(
        split=name,
        z=z,
        labels=labels,
        shown={m: (words or {}).get(m, pictures) for m in z},
        ids=[f"record {i}" for i in range(n)],
        label_names={label: [] for label in labels},
    )


def fake_model(fitting: Embedded) -> Any:
    """One that was trained on a split, which it can embed."""

    def embed(name: str, modalities: list[str]) -> Embedded:
        assert name == fitting.split and modalities == list(fitting.z)
        return fitting

    settings = SimpleNamespace(source={"split": fitting.split})
    return SimpleNamespace(settings=settings, embed=embed, kept={})


def random_split(
    rng: np.random.Generator, n: int, modalities: tuple[str, ...], name: str = "new"
) -> Embedded:
    concepts = np.concatenate([[0], rng.integers(5, size=n - 1)])
    z = {m: unit(rng.normal(size=(n, 5)) + 2 * np.eye(5)[concepts]) for m in modalities}
    words = {m: [f"words {i}" for i in rng.integers(2, size=n)] for m in ("text", "name")}
    return split(z, concepts, concepts // 2, words, name)


def literal_fused(embedded: Embedded, those: tuple[str, ...], record: int) -> np.ndarray:
    total = sum(embedded.z[m][record].astype(np.float64) for m in those)
    return np.asarray(total / np.linalg.norm(total), np.float64)


def literal_items(embedded: Embedded, those: tuple[str, ...], label: str) -> list[int]:
    found: dict[Any, int] = {}
    for i in range(len(embedded.ids)):
        strings = [embedded.shown[m][i] if m in ("text", "name") else i for m in those]
        found.setdefault((*strings, embedded.labels[label][i]), i)
    return sorted(found.values())


def is_nearest(right: float, wrong: list[float]) -> bool:
    best = max(wrong, default=-2.0)
    hypothesis.assume(abs(right - best - TIE) > 1e-6)  # rounding decides
    return right - best > TIE


def literal(embedded: Embedded, fitting: Embedded) -> dict[str, float]:
    """Every set of modalities with scores one by one."""
    found: dict[str, float] = {}
    every = [
        those
        for size in range(1, len(embedded.z) + 1)
        for those in itertools.combinations(embedded.z, size)
    ]
    concept, group = embedded.labels["concept"], embedded.labels["group"]
    for target in embedded.z:
        gallery = literal_items(embedded, (target,), "concept")
        for those in every:
            if target in those:
                continue
            queries, hits = literal_items(embedded, those, "concept"), []
            for q in queries:
                score = {g: float(literal_fused(embedded, those, q) @ embedded.z[target][g])
                         for g in gallery}  # fmt: skip
                right = max(s for g, s in score.items() if concept[g] == concept[q])
                wrong = [s for g, s in score.items() if concept[g] != concept[q]]
                hits.append(is_nearest(right, wrong))
            found[f"removal/{'+'.join(those)}_to_{target}/recall@1"] = float(np.mean(hits))
    for fitted, tested in itertools.product(every, every):
        rows: dict[int, list[np.ndarray]] = {}
        for i in literal_items(fitting, fitted, "group"):
            value = int(fitting.labels["group"][i])
            rows.setdefault(value, []).append(literal_fused(fitting, fitted, i))
        means = {value: sum(those) / np.linalg.norm(sum(those)) for value, those in rows.items()}
        largest = max(sorted(rows), key=lambda value: len(rows[value]))
        hits, guesses = [], []
        for i in literal_items(embedded, tested, "group"):
            score = {v: float(literal_fused(embedded, tested, i) @ m) for v, m in means.items()}
            wrong = [s for value, s in score.items() if value != group[i]]
            hits.append(group[i] in means and is_nearest(score[group[i]], wrong))
            guesses.append(group[i] == largest)
        name = f"removal_group/{'+'.join(fitted)}_on_{'+'.join(tested)}"
        found[f"{name}/accuracy"] = float(np.mean(hits))
        found[f"{name}/chance"] = float(np.mean(guesses))
        found[f"{name}/count"] = len(hits)
    return found


@hypothesis.given(
    st.sampled_from([("image", "text"), THREE, ("text", "name", "sound")]),
    st.sampled_from([1, 6, 20]),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_equals_literal_loops(modalities: tuple[str, ...], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embedded = random_split(rng, n, modalities)
    fitting = random_split(rng, 15, modalities, "train")
    model = fake_model(fitting)
    found = numbers(removal.evaluate(embedded, model, label="group", at=(1,)))
    ours = {
        key: value
        for key, value in found.items()
        if not key.endswith(("chance@1", "queries", "gallery"))
    }
    assert ours == pytest.approx(literal(embedded, fitting))


def test_single_modalities_are_plain_retrieval() -> None:
    embedded = random_split(np.random.default_rng(5), 40, THREE)
    found = numbers(removal.evaluate(embedded, None))  # type: ignore[arg-type]
    plain = numbers(retrieval.evaluate(embedded, None))
    shared = {f"removal/{key}": v for key, v in plain.items() if not key.endswith("median_rank")}
    assert shared.items() <= found.items()
    assert len(found) == len(shared) // 6 * 9


def test_two_that_are_each_unsure_are_sure_together() -> None:
    """The one tells the row and the other the column of four."""
    square = unit([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    rows, columns = unit(square * [1, 1, 0, 0]), unit(square * [0, 0, 1, 1])
    embedded = split({"row": rows, "column": columns, "both": square}, range(4))
    found = numbers(removal.evaluate(embedded, None, at=(1, 2)))  # type: ignore[arg-type]
    assert found["removal/row_to_both/recall@1"] == 0  # each ties with a wrong one
    assert found["removal/row_to_both/recall@2"] == 1
    assert found["removal/row+column_to_both/recall@1"] == 1
    assert found["removal/row+column_to_both/chance@1"] == 0.25


def test_opposite_embeddings_say_nothing() -> None:
    z = {"image": np.eye(3), "text": -np.eye(3), "sound": np.eye(3)}
    found = numbers(removal.evaluate(split(z, range(3)), None, at=(1,)))  # type: ignore[arg-type]
    assert found["removal/image_to_sound/recall@1"] == 1
    assert found["removal/image+text_to_sound/recall@1"] == 0


def test_class_means_of_one_modality_on_another() -> None:
    """A modality that is turned away from the other is named by its own means only."""
    groups = [0, 0, 1, 1]
    z = {"image": np.eye(2)[groups], "text": np.eye(2)[::-1][groups]}
    model = fake_model(split(z, range(4), groups, name="train"))
    found = numbers(removal.evaluate(split(z, range(4), groups), model, label="group"))
    accuracy = {k: v for k, v in found.items() if k.endswith("/accuracy")}
    assert accuracy["removal_group/image_on_image/accuracy"] == 1
    assert accuracy["removal_group/text_on_text/accuracy"] == 1
    assert accuracy["removal_group/image_on_text/accuracy"] == 0
    assert accuracy["removal_group/text_on_image/accuracy"] == 0
    assert len(accuracy) == 9


def test_figures_are_drawn_by_concept() -> None:
    rng = np.random.default_rng(1)
    embedded, fitting = (random_split(rng, 8, ("image", "sound"), of) for of in ("new", "train"))
    figures = removal.evaluate(embedded, fake_model(fitting), label="group")
    for name in ("removal/image_to_sound/recall@5", "removal_group/image+sound_on_image/accuracy"):
        figure = figures[name]
        assert isinstance(figure, PerItem) and figure.cluster_N is not None
        assert figure.cluster_N.tolist() == embedded.labels["concept"].tolist()


def test_devices_change_nothing() -> None:
    rng = np.random.default_rng(6)
    embedded = random_split(rng, 157, THREE)
    model = fake_model(random_split(rng, 99, THREE, "train"))
    one = numbers(removal.evaluate(embedded, model, label="group"))
    with jax.set_mesh(data_mesh()):
        assert numbers(removal.evaluate(embedded, model, label="group")) == one


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(label="artist"), "of 'new' have no label 'artist'. There is: concept, group."),
        (dict(label="group", fit="new"), "those of another split: give it as 'fit'"),
        (dict(label="concept"), "'new' and 'train' have no 'concept' in common"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    z = {"image": np.eye(2), "text": np.eye(2)}
    model = fake_model(split(z, [8, 9], [0, 1], name="train"))
    with pytest.raises(InputError, match=message):
        removal.evaluate(split(z, [0, 1], [0, 1]), model, **options)


def test_one_modality_cannot_be_removed() -> None:
    with pytest.raises(InputError, match=r"only \['image'\]: nothing can be left out"):
        removal.evaluate(split({"image": np.eye(2)}, [0, 1]), None)  # type: ignore[arg-type]


def test_records_that_lack_a_modality_are_refused() -> None:
    embedded = split({m: np.eye(2, dtype=np.float32) for m in ("image", "text")}, [0, 1])
    embedded.present["text"] = np.array([True, False])
    with pytest.raises(InputError, match="some records of 'new' have no 'text'"):
        removal.evaluate(embedded, None)


def test_a_diverged_model_gets_no_numbers() -> None:
    z = {"image": np.eye(2), "text": np.full((2, 2), np.nan)}
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        removal.evaluate(split(z, [0, 1]), None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [{"name": "removal", "label": "group", "at": [1]}]
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("unseen_artist"))
    assert 0 <= found["eval/unseen_artist/removal/image_to_text/recall@1"] <= 1
    names = ("image", "text", "image+text")
    for fitted, tested in itertools.product(names, names):
        task = f"eval/unseen_artist/removal_group/{fitted}_on_{tested}"
        assert 0 <= found[f"{task}/accuracy"] <= 1 and found[f"{task}/count"] > 0
