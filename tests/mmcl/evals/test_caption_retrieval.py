"""Several captions a picture: against loops over all pairs, and a set by hand."""

from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Reject
from mmcl import experiment
from mmcl.evals import caption_retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.mesh import data_mesh


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=-1, keepdims=True)).astype(np.float32)


class Captioned(list):
    """A source of records with captions."""

    label_names: dict[str, list[str]] = {}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Figures of pictures and captions: `z` has a row for every caption that is a key."""

    def judged(z_NxD: Any, words: list[Any], z: dict[str, Any], **options: Any) -> Any:
        rejected = options.pop("rejected", ())
        source = Captioned(
            {"id": f"r{i}", "text": own, "image": b"x"} for i, own in enumerate(words)
        )
        opened: list[Any] = []

        def open_source(settings: Any, split: str) -> Captioned:
            opened.append((settings, split))
            return source

        monkeypatch.setattr(experiment, "open_source", open_source)
        encoded: list[str] = []

        def encode(modality: str, values: list[str]) -> np.ndarray:
            assert modality == "text"
            encoded.extend(values)
            return np.stack([unit(z[value]) for value in values])

        ids = options.pop("ids", [f"r{i}" for i in range(len(words)) if i not in rejected])
        embedded = Embedded(
            split="test",
            z={"image": unit(z_NxD)},
            labels={"concept": np.arange(len(ids), dtype=np.int32)},
            shown={"image": np.zeros((len(ids), 2, 2, 3), np.uint8)},
            ids=ids,
            label_names={},
            rejected=[Reject(None, i, 0, i, "missing_file", "it is gone") for i in rejected],
        )
        model: Any = SimpleNamespace(encode=encode, settings="those of the model")
        found = caption_retrieval.evaluate(embedded, model, **options)
        assert opened == [("those of the model", "test")]
        return found, encoded

    return judged


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([None, 1, 3, 5]))
@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_equals_loops_over_all_pairs(judged: Any, seed: int, most: int | None) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    captions = [[f"{i} {k}" for k in range(rng.integers(1, 7))] for i in range(n)]
    z_NxD = unit(rng.normal(size=(n, 4)))
    z = {words: rng.normal(size=4) for own in captions for words in own}
    found, encoded = judged(z_NxD, captions, z, captions=most)
    own = [those[:most] for those in captions]
    assert encoded == [words for those in own for words in those]
    score = {
        (i, words): sum(float(a) * float(b) for a, b in zip(z_NxD[i], unit(z[words])))
        for i in range(n)
        for words in encoded
    }
    ranks_there, ranks_back = [], []
    for i in range(n):
        order = sorted(encoded, key=lambda words: -score[i, words])
        ranks_there.append(1 + min(order.index(words) for words in own[i]))
    for words in encoded:
        order_N = sorted(range(n), key=lambda i: -score[i, words])
        ranks_back.append(1 + order_N.index(int(words.split()[0])))
    told = numbers(found)
    for name, ranks in (("image_to_captions", ranks_there), ("captions_to_image", ranks_back)):
        for k in (1, 5, 10):
            assert told[f"{name}/recall@{k}"] == np.mean([rank <= k for rank in ranks])
        assert told[f"{name}/median_rank"] == np.median(ranks)
        assert told[f"{name}/queries"] == len(ranks)
    assert told["image_to_captions/gallery"] == len(encoded)
    assert told["captions_to_image/gallery"] == n
    assert told["captions_to_image/chance@1"] == pytest.approx(1 / n)
    expected = np.mean([len(those) / len(encoded) for those in own])
    assert told["image_to_captions/chance@1"] == pytest.approx(expected)


def test_any_of_its_own_captions_answers_a_picture(judged: Any) -> None:
    """Picture 0 finds its second caption first; one of picture 1's captions is nearer to 0."""
    z = {"a": [-1, 0], "b": [1, 0.1], "c": [0, 1], "d": [1, 0.5]}
    found, _ = judged([[1, 0], [0, 1]], [["a", "b"], ["c", "d"]], z)
    there, back = found["image_to_captions/recall@1"], found["captions_to_image/recall@1"]
    assert there.value_N.tolist() == [True, True] and there.cluster_N.tolist() == [0, 1]
    # "a" is opposite of its picture, so the other is nearer; so it is for "d"
    assert back.value_N.tolist() == [False, True, True, False]
    assert back.cluster_N.tolist() == [0, 0, 1, 1]
    assert found["captions_to_image/median_rank"].median
    assert numbers(found)["captions_to_image/queries"] == 4


def test_a_caption_of_two_records_is_a_tie_and_counted(judged: Any) -> None:
    z = {"same": [1, 0], "other": [0, 1], "far": [-1, -1]}
    found, _ = judged([[1, 0], [0, 1]], [["same", "far"], ["same", "other"]], z)
    told = numbers(found)
    assert told["image_to_captions/shared"] == 2
    assert found["image_to_captions/recall@1"].value_N.tolist() == [False, True]


def test_a_single_string_and_records_that_could_not_be_used(judged: Any) -> None:
    z = {"a": [1, 0], "c": [0, 1]}
    found, encoded = judged([[1, 0], [0, 1]], ["a", None, "c"], z, rejected=[1])
    assert encoded == ["a", "c"]
    assert numbers(found)["captions_to_image/recall@1"] == 1


def test_a_collapsed_model_finds_nothing(judged: Any) -> None:
    z = {"a": [1, 0], "b": [1, 0], "c": [1, 0]}
    told = numbers(judged([[1, 0]] * 3, [["a"], ["b"], ["c"]], z, at=[1, 2])[0])
    assert told["image_to_captions/recall@2"] == told["captions_to_image/recall@2"] == 0


def test_devices_change_nothing(judged: Any) -> None:
    rng = np.random.default_rng(5)
    captions = [[f"{i} {k}" for k in range(5)] for i in range(40)]
    z_NxD = rng.normal(size=(40, 8))
    z = {words: z_NxD[i] + rng.normal(size=8) for i, own in enumerate(captions) for words in own}
    one = numbers(judged(z_NxD, captions, z)[0])
    with jax.set_mesh(data_mesh()):
        assert numbers(judged(z_NxD, captions, z)[0]) == one
    assert 0.1 < one["image_to_captions/recall@1"] < 1


@pytest.mark.parametrize(
    "captions, options, message",
    [
        ([["a"], ["a"]], dict(modality="imag"), "no modality 'imag' in 'test'. Did you mean 'im"),
        ([["a"], ["a"]], dict(captions=0), "captions=0 leaves none"),
        ([["a"], []], {}, "'r1' has no captions as its 'text'"),
        ([["a"], None], {}, "'text' of 'r1' is a NoneType, and should be a list of captions"),
        ([["a"], {"en": ["a"]}], {}, "'text' of 'r1' is a dict"),
        ([["a"], ["a"], ["a"]], dict(ids=["r0", "r1"]), "'test' has changed since"),
        ([["a"], ["a"]], dict(ids=["r0", "r7"]), "record 1 was 'r7' when embedded, and is 'r1'"),
    ],
)
def test_what_is_wrong_is_said(judged: Any, captions: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judged([[1, 0], [0, 1]], captions, {"a": [1, 0]}, **options)


def test_figures_have_intervals(judged: Any) -> None:
    found, _ = judged([[1, 0]], [["a"]], {"a": [1, 0]})
    with_items = {name for name, figure in found.items() if isinstance(figure, PerItem)}
    kinds = ("recall@1", "recall@5", "recall@10", "median_rank")
    names = ("image_to_captions", "captions_to_image")
    assert with_items == {f"{name}/{kind}" for name in names for kind in kinds}
