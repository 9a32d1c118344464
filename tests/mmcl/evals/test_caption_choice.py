"""The right caption among wrong ones, against loops, and by hand."""

from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.evals import caption_choice
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, number
from mmcl.evals.pairs import TIE


class Captioned(list):
    label_names: dict[str, list[str]] = {}


def unit(z: Any) -> np.ndarray:
    z = np.asarray(z, np.float64)
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)


def evaluate(z_NxD: Any, captions: list[list[Any]], **options: Any) -> Any:
    """`captions` holds a vector for every caption."""
    names = [[f"{i} {k}" for k in range(len(own))] for i, own in enumerate(captions)]
    vectors = {name: v for own, of in zip(names, captions) for name, v in zip(own, of)}
    n = len(captions)
    source = Captioned({"id": f"r{i}", "text": own} for i, own in enumerate(names))
    labels = options.pop("labels", {}) | {"concept": np.arange(n, dtype=np.int32)}
    embedded = Embedded("val", {"image": unit(z_NxD)}, labels, {}, [f"r{i}" for i in range(n)], {})

    def encode(modality: str, words: list[str]) -> np.ndarray:
        assert modality == "text"
        return np.stack([unit(vectors[word]) for word in words])

    model: Any = SimpleNamespace(settings=None, encode=encode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "open_source", lambda settings, split: source)
        found = caption_choice.evaluate(embedded, model, **options)
    return {name.removeprefix("caption_choice/"): figure for name, figure in found.items()}


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50)
def test_equals_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 20))
    captions = [list(rng.normal(size=(rng.integers(2, 5), 3))) for _ in range(n)]
    z_NxD = rng.normal(size=(n, 3))
    kind = rng.integers(3, size=n).astype(np.int32)
    picture = rng.integers(4, size=n).astype(np.int32)
    hits: dict[int, list[bool]] = {}
    for i, own in enumerate(captions):
        score = [sum(float(a) * float(b) for a, b in zip(unit(c), unit(z_NxD[i]))) for c in own]
        hypothesis.assume(abs(score[0] - max(score[1:]) - TIE) > 1e-6)
        hits.setdefault(int(kind[i]), []).append(score[0] - max(score[1:]) >= TIE)
    labels = {"kind": kind, "picture": picture}
    found = evaluate(z_NxD, captions, labels=labels, group="kind", cluster="picture")
    every = [hit for of in hits.values() for hit in of]
    assert number(found["accuracy"]) == pytest.approx(np.mean(every))
    of_kinds = np.mean([np.mean(of) for of in hits.values()])
    assert number(found["mean_per_kind"]) == pytest.approx(of_kinds)
    assert found["chance"] == pytest.approx(np.mean([1 / len(own) for own in captions]))
    assert found["count"] == n
    for name in ("accuracy", "mean_per_kind"):
        assert isinstance(found[name], PerItem)
        np.testing.assert_array_equal(found[name].cluster_N, picture)


def test_a_tie_fails_and_no_group_is_no_figure() -> None:
    found = evaluate([[1, 0], [1, 0]], [[[1, 1], [1, -1]], [[1, 0.1], [0, 1]]])
    assert found["accuracy"].value_N.tolist() == [False, True]
    assert found.keys() == {"accuracy", "chance", "count"}


@pytest.mark.parametrize(
    "captions, options, message",
    [
        ([[[1, 0]], [[1, 0], [0, 1]]], {}, "'r0' has one caption as its 'text', and nothing to"),
        ([[[1, 0], [0, 1]]], dict(modality="sound"), "no modality 'sound' in 'val'."),
        ([[[1, 0], [0, 1]]], dict(group="kind"), "no label 'kind' in 'val'."),
        ([[[1, 0], [0, 1]]], dict(cluster="pictur"), "no label 'pictur' in 'val'."),
    ],
)
def test_what_is_wrong_is_said(captions: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(np.eye(2)[: len(captions)], captions, **options)


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="1 of 1 'image' .* diverged"):
        evaluate([[np.nan, 0]], [[[1, 0], [0, 1]]])
