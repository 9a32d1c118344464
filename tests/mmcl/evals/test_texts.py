"""Texts in the middle of their transforms."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from data_pipelines.transforms import text
from mmcl import experiment
from mmcl.evals.embedded import Embedded
from mmcl.evals.texts import texts


class Source(list):
    label_names: dict[str, list[str]] = {}


def template(value: str, *, rng: Any, train: bool) -> str:
    return f"a {value}"


def length(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.float32([len(value), 1]), "raw": value}


def setup(monkeypatch: pytest.MonkeyPatch, values: list[Any], *transforms: Any) -> Any:
    source = Source({"id": str(i), "text": value} for i, value in enumerate(values))
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    n = len(values)
    embedded = Embedded("val", {"text": np.eye(n, 2)}, {}, {}, [str(i) for i in range(n)], {})

    def encode_batch(modality: str, inputs: Any) -> np.ndarray:
        assert modality == "text" and len(inputs["value"]) == 2
        z = inputs["value"]
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))

    pipeline = Pipeline({"text": transforms, "other": []}, None)
    model: Any = SimpleNamespace(
        settings=None, pipeline=pipeline, batch_size=2, encode_batch=encode_batch
    )
    return embedded, model


def test_the_first_string_is_taken_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [{"en": ["one", "two"]}, "plain", ["first", "second"]]
    it = setup(monkeypatch, values, text.choose, template, length)
    found = texts(*it, "text", np.array([2, 0, 1]))
    assert found.text_N == ["first", "one", "plain"]
    z = found.encode(["abc", "x", "ab"])
    np.testing.assert_allclose(z[:, 0] / z[:, 1], [5, 3, 4])  # with "a " before each
    same = setup(monkeypatch, ["a b"], template, length)
    assert texts(*same, "text", np.array([0])).text_N == ["a b"]


def test_what_is_no_text_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'text' of 'val' is no text of every record"):
        texts(*setup(monkeypatch, [None, "a"], length), "text", np.arange(2))
    with pytest.raises(InputError, match="'text' of 'val' is no text of every record"):
        texts(*setup(monkeypatch, [3, 4]), "text", np.arange(2))
