"""Composed retrieval against literal loops, by hand, and by a real model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.faults import Reject
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import composed
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh

Row = tuple[str, str, str]


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z_NxD: Any, words: Sequence[str] | None = None) -> Embedded:
    n = len(z_NxD)
    return Embedded(
        split="val",
        z={"image": np.asarray(z_NxD, np.float32)},
        labels={"concept": np.zeros(n, np.int32) if words else np.arange(n, dtype=np.int32)},
        shown={"image": list(words) if words else np.zeros((n, 2, 2, 3), np.uint8)},
        ids=[f"r{i}" for i in range(n)],
        label_names={},
    )


def saying(known: dict[str, Any]) -> Any:
    """A model that knows some words."""

    def encode(modality: str, words: list[str]) -> np.ndarray:
        assert modality == "text"
        return np.array([known[one] for one in words], np.float32)

    return SimpleNamespace(encode=encode)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Row]], str]:
    path = tmp_path_factory.mktemp("triplets") / "triplets.jsonl"

    def written(rows: Sequence[Row]) -> str:
        keys = ("reference", "modifier", "target")
        path.write_text("\n".join(json.dumps(dict(zip(keys, row))) for row in rows) + "\n\n")
        return str(path)

    return written


Written = Callable[[Sequence[Row]], str]


@hypothesis.given(
    st.integers(2, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_equals_literal_loops(written: Written, n: int, q: int, w: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_NxD, words_KxD = unit(rng.normal(size=(n, 6))), unit(rng.normal(size=(5, 6)))
    asked = [(*rng.choice(n, 2, replace=False), int(rng.integers(5))) for _ in range(q)]
    ranks = []
    for reference, target, word in asked:
        query = [
            w * float(a) + (1 - w) * float(b) for a, b in zip(z_NxD[reference], words_KxD[word])
        ]
        length = sum(a * a for a in query) ** 0.5
        score = {
            i: sum(a * float(b) for a, b in zip(query, z_NxD[i])) / length
            for i in range(n)
            if i != reference
        }
        gaps = [score[i] - score[target] + TIE for i in score if i != target]
        hypothesis.assume(all(abs(gap) > 5e-7 for gap in gaps))  # rounding decides
        ranks.append(1 + sum(gap > 0 for gap in gaps))
    path = written([(f"r{r}", f"word {word}", f"r{t}") for r, t, word in asked])
    model = saying({f"word {i}": row for i, row in enumerate(words_KxD)})
    found = numbers(composed.evaluate(split(z_NxD), model, triplets=path, weight=w, at=(1, 5)))
    assert found == pytest.approx(
        {
            "composed/recall@1": np.mean([rank <= 1 for rank in ranks]),
            "composed/recall@5": np.mean([rank <= 5 for rank in ranks]),
            "composed/chance@1": 1 / (n - 1),
            "composed/chance@5": min(5 / (n - 1), 1),
            "composed/median_rank": np.median(ranks),
            "composed/queries": q,
            "composed/gallery": n,
        }
    )


def test_known_values(written: Written) -> None:
    """Red square and "circle" find the red circle; by either alone another is nearer."""
    square, circle, red, blue = np.eye(4)
    things = unit([square + red, circle + red, circle + blue, square + 0.9 * red + 0.5 * blue])
    path = written([("r0", "circle", "r1")])
    model = saying({"circle": circle})

    def recall(weight: float) -> float:
        found = composed.evaluate(split(things), model, triplets=path, weight=weight)
        return numbers(found)["composed/recall@1"]

    assert (recall(0.5), recall(1.0), recall(0.0)) == (1, 0, 0)  # by words alone, blue ties


def test_what_cancels_out_or_collapses_finds_nothing(written: Written) -> None:
    east = np.array([1.0, 0.0])
    path = written([("r0", "not", "r1")])
    one = composed.evaluate(split(np.tile(east, (30, 1))), saying({"not": -east}), triplets=path)
    assert numbers(one)["composed/recall@10"] == 0
    two = composed.evaluate(split(np.tile(east, (30, 1))), saying({"not": east}), triplets=path)
    assert numbers(two)["composed/median_rank"] == 29


def test_equal_strings_are_one_item(written: Written) -> None:
    embedded = split(np.eye(3)[[0, 0, 1, 2]], ["red", "red", "blue", "green"])
    path = written([("r1", "word", "r2")])
    found = numbers(composed.evaluate(embedded, saying({"word": np.eye(3)[1]}), triplets=path))
    assert found["composed/gallery"] == 3 and found["composed/recall@1"] == 1
    assert found["composed/chance@1"] == 0.5


def test_concepts_of_the_references_are_the_clusters(written: Written) -> None:
    path = written([("r2", "word", "r1"), ("r0", "word", "r1")])
    figures = composed.evaluate(split(np.eye(3)), saying({"word": np.eye(3)[1]}), triplets=path)
    recall = figures["composed/recall@1"]
    assert isinstance(recall, PerItem) and recall.cluster_N is not None
    assert recall.cluster_N.tolist() == [2, 0]


@pytest.mark.parametrize("known", [True, False])
def test_triplets_of_rejected_records_are_left_out(written: Written, known: bool) -> None:
    embedded = split(np.eye(3))
    rejected = [Reject("lost" if known else None, 3, 0, 3, "unreadable", "cut short")]
    embedded = Embedded(**{**vars(embedded), "rejected": rejected})
    path = written([("lost", "word", "r1"), ("r0", "word", "r1")])
    found = composed.evaluate(embedded, saying({"word": np.eye(3)[1]}), triplets=path)
    assert numbers(found)["composed/queries"] == 1


def test_devices_change_nothing(written: Written) -> None:
    rng = np.random.default_rng(0)
    embedded = split(unit(rng.normal(size=(150, 8))))
    path = written([(f"r{i}", "word", f"r{(7 * i + 1) % 150}") for i in range(0, 150, 2)])
    model = saying({"word": unit(rng.normal(size=(1, 8)))[0]})
    one = numbers(composed.evaluate(embedded, model, triplets=path))
    with jax.set_mesh(data_mesh()):
        assert numbers(composed.evaluate(embedded, model, triplets=path)) == one


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh, written: Written) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    path = written([(embedded.ids[0], "smiling", embedded.ids[1])])
    with jax.set_mesh(one_device):
        found = numbers(composed.evaluate(embedded, model, triplets=path))
    assert 1 <= found["composed/median_rank"] < len(embedded.ids)


@pytest.mark.parametrize(
    "lines, message",
    [
        ("", "holds no triplets that can be used"),
        ("{", "line 1: not a JSON object"),
        ("[1]", "line 1: should be an object with texts as reference, modifier, target"),
        ('{"reference": "r0", "modifier": 1, "target": "r1"}', "line 1: should be an object"),
        (
            '\n{"reference": "r0", "modifier": "a", "target": "x"}',
            "line 2: no record 'x' in 'val', whose first is 'r0'",
        ),
        ('{"reference": "r1", "modifier": "a", "target": "r1"}', "the reference is the target"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "triplets.jsonl"
    path.write_text(lines)
    with pytest.raises(InputError) as error:
        composed.evaluate(split(np.eye(2)), saying({}), triplets=str(path))
    assert message in str(error.value) and str(path) in str(error.value)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, message in [
        (dict(weight=1.5), "weight=1.5 should be from 0 to 1"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(), "triplets.jsonl is missing"),
    ]:
        with pytest.raises(InputError, match=message):
            path = str(tmp_path / "triplets.jsonl")
            composed.evaluate(split(np.eye(2)), saying({}), triplets=path, **options)  # type: ignore[arg-type]


def test_a_diverged_model_gets_no_numbers(written: Written) -> None:
    path = written([("r0", "word", "r1")])
    with pytest.raises(InputError, match="1 of 1 'modifier' .* diverged"):
        composed.evaluate(split(np.eye(2)), saying({"word": [np.nan, 0]}), triplets=path)
