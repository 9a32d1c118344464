"""A split, encoded: every record that can be used once, in order, with what stands for it."""

from typing import Any

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl.evals.embed import embed, encode_values


class Source:
    label_names = {"concept": ["even", "odd"]}

    def __init__(self, length: int, bad: set[int] = set()):  # noqa: B006
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i in self.bad:
            raise OSError("cut short")
        return {"id": f"r{i}", "tone": float(i), "picture": i, "word": f"w{i}", "concept": i % 2}


def tone(value: float, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.float32([value, 1])}


def picture(value: int, *, rng: Any, train: bool) -> dict[str, Any]:
    return {"value": np.full((2, 2, 3), value, np.uint8)}


def word(value: str, *, rng: Any, train: bool) -> dict[str, Any]:
    if value == "bad":
        raise ValueError("no word")
    return {"value": np.int32([len(value)]), "raw": value}


def encode_batch(modality: str, inputs: Any) -> np.ndarray:
    assert len(inputs["value"]) == 4
    return inputs["value"].reshape(4, -1)[:, :1].astype(np.float32)


PIPELINE = Pipeline({"tone": [tone], "picture": [picture], "word": [word]}, Source(10))


@pytest.mark.parametrize("bad", [set(), {0}, {9}, {3, 4}, {4, 5, 6, 7}, {8, 9}, set(range(1, 10))])
def test_every_record_that_can_be_used(bad: set[int]) -> None:
    source = Source(10, bad)
    embedded = embed(encode_batch, source, PIPELINE, split="val", batch_size=4)
    good = [i for i in range(10) if i not in bad]
    assert embedded.ids == [f"r{i}" for i in good]
    assert embedded.z["tone"].tolist() == [[i] for i in good]
    assert embedded.labels["concept"].tolist() == [i % 2 for i in good]
    assert [one.index for one in embedded.rejected] == sorted(bad)
    assert embedded.shown["tone"] == [f"r{i}" for i in good]  # a vector looks like nothing
    assert embedded.shown["word"] == [f"w{i}" for i in good]
    assert [pixels[0, 0, 0] for pixels in embedded.shown["picture"]] == good


def test_only_some_modalities() -> None:
    embedded = embed(
        encode_batch, Source(10), PIPELINE, split="val", batch_size=4, modalities=["word"]
    )
    assert embedded.z.keys() == {"word"} and embedded.shown.keys() == {"tone", "picture", "word"}


class Lacking(Source):
    """Of which every third record has no word."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = super().__getitem__(i)
        return record if i % 3 else record | {"word": None}


def test_what_a_record_lacks() -> None:
    source = Lacking(10, {4})
    pipeline = Pipeline(PIPELINE.transforms, source)
    embedded = embed(encode_batch, source, pipeline, split="val", batch_size=4)
    assert embedded.present.keys() == {"word"}
    assert embedded.has("word").tolist() == [i % 3 > 0 for i in range(10) if i != 4]
    assert embedded.has("tone").all() and len(embedded.has("tone")) == 9


def test_where_nothing_can_be_used() -> None:
    with pytest.raises(InputError, match="No record of 'val' can be used; the last: unreadable, "):
        embed(encode_batch, Source(10, set(range(10))), PIPELINE, split="val", batch_size=4)


def test_single_values() -> None:
    z_NxD = encode_values(encode_batch, PIPELINE, "word", ["a", "bcd", "ef", "g", "hi"], 4)
    assert z_NxD.tolist() == [[1], [3], [2], [1], [2]]
    with pytest.raises(InputError, match="This cannot be used as 'word': no word"):
        encode_values(encode_batch, PIPELINE, "word", ["a", "bad"], 4)


def test_without_concepts_a_record_is_right_for_itself_alone() -> None:
    source = Source(10, {4})
    source.label_names = {}
    embedded = embed(encode_batch, source, PIPELINE, split="val", batch_size=4)
    assert embedded.labels["concept"].tolist() == list(range(9))
