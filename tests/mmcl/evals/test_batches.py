"""The raw inputs of an embedded split."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.evals.batches import batches
from mmcl.evals.embed import embed
from mmcl.mesh import data_mesh


class Source:
    label_names: dict[str, list[str]] = {}

    def __init__(self, length: int, bad: set[int]):
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i in self.bad:
            raise OSError("cut short")
        return {"id": f"r{i}", "tone": float(i)}


def tone(value: float, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.float32([value, 1]), "raw": "not for towers"}


PIPELINE = Pipeline({"tone": [tone]}, Source(10, set()))


def first(_: str, inputs: Any) -> np.ndarray:
    return np.asarray(inputs["value"])


def model(monkeypatch: pytest.MonkeyPatch, source: Source, batch_size: int, devices: int) -> Any:
    monkeypatch.setattr(experiment, "open_source", lambda settings, split: source)
    mesh = data_mesh(jax.devices()[:devices])
    return SimpleNamespace(settings=None, pipeline=PIPELINE, batch_size=batch_size, mesh=mesh)


@pytest.mark.parametrize("bad", [set(), {0}, {9}, {3, 4}, {4, 5, 6, 7}, set(range(1, 10))])
@pytest.mark.parametrize("batch_size, devices", [(4, 1), (16, 1), (8, 8), (16, 8)])
def test_every_record_that_was_embedded(
    monkeypatch: pytest.MonkeyPatch, bad: set[int], batch_size: int, devices: int
) -> None:
    source = Source(10, bad)
    embedded = embed(first, source, PIPELINE, split="val", batch_size=4)
    found = list(batches(embedded, model(monkeypatch, source, batch_size, devices)))
    sizes = {len(batch.record_B) for batch in found}
    assert len(sizes) == 1 and not min(sizes) % devices and max(sizes) <= batch_size
    record_N = np.concatenate([batch.record_B[: batch.real] for batch in found])
    np.testing.assert_array_equal(record_N, np.arange(len(embedded.ids)))
    for batch in found:
        np.testing.assert_array_equal(batch.inputs["tone"]["value"][:, 0], batch.inputs["index"])
        seen = embedded.z["tone"][batch.record_B]
        np.testing.assert_array_equal(batch.inputs["tone"]["value"], seen)
        assert batch.inputs.keys() >= {"tone", "index"} and "id" not in batch.inputs
        assert batch.inputs["tone"].keys() == {"value"}


def test_some_records_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(10, {2, 5})
    embedded = embed(first, source, PIPELINE, split="val", batch_size=4)
    some = list(batches(embedded, model(monkeypatch, source, 2, 1), [6, 0, 2]))
    assert [batch.record_B.tolist() for batch in some] == [[6, 0], [2, 2]]
    assert [batch.inputs["index"].tolist() for batch in some] == [[8, 0], [3, 3]]
    assert [batch.real for batch in some] == [2, 1]


@pytest.mark.parametrize(
    "now, message",
    [
        (Source(9, set()), "9 records, no more 10"),
        (Source(10, {4}), "None is no more of use"),
    ],
)
def test_a_split_that_has_changed_is_named(
    monkeypatch: pytest.MonkeyPatch, now: Source, message: str
) -> None:
    embedded = embed(first, Source(10, set()), PIPELINE, split="val", batch_size=4)
    with pytest.raises(InputError, match=f"'val' has changed .*{message}"):
        list(batches(embedded, model(monkeypatch, now, 4, 1)))


def test_other_records_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = embed(first, Source(10, {3}), PIPELINE, split="val", batch_size=4)
    with pytest.raises(InputError, match="its records are others"):
        renamed = [*embedded.ids[:-1], "x"]
        embedded.ids[:] = renamed
        list(batches(embedded, model(monkeypatch, Source(10, {3}), 4, 1)))
