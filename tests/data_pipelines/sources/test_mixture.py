"""Several sources as one: numbers, ids, labels, splits."""

import pickle
import sys

import pytest

from data_pipelines.errors import InputError
from data_pipelines.open_source import open_source

OWN = """
class Source:
    def __init__(
        self, *, n: int, split: str = "train", labels: dict[str, list[str]] = {"kind": ["x", "y"]}
    ):
        self.n, self.split, self.label_names = n, split, labels
        self.folder = None

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        labels = {name: i % 2 for name in self.label_names}
        text = f"{i} of {self.n}"
        return {"id": f"{self.split}-{i}", "text": text, "source": "the web", **labels}


class Parted(Source):
    splits = ("train", "val")
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_parts", None)


def section(n, name="Source", **more):
    return {"name": f"own_parts.{name}", "n": n, **more}


def mixture(sources, **more):
    return open_source({"name": "mixture", "sources": sources, **more})


def test_records_are_numbered_through():
    source = mixture({"b": section(2), "a": section(3)})  # in the order of their names
    assert len(source) == 5
    assert [source[i]["id"] for i in range(5)] == [
        "a/train-0", "a/train-1", "a/train-2", "b/train-0", "b/train-1",
    ]  # fmt: skip
    assert [source[i]["source"] for i in range(5)] == [0, 0, 0, 1, 1]
    assert [source.name_of(i) for i in range(5)] == ["a", "a", "a", "b", "b"]
    assert source[4]["text"] == "1 of 2" and source[4]["kind"] == 1
    assert source.label_names == {"kind": ["x", "y"], "source": ["a", "b"]}
    assert source.records == {"a": 3, "b": 2}
    for index in (-1, 5):
        with pytest.raises(IndexError):
            source[index]
    copied = pickle.loads(pickle.dumps(source))
    assert [copied[i] for i in range(5)] == [source[i] for i in range(5)]


def test_weights():
    sources = {"a": section(3), "b": section(2)}
    assert mixture(sources).weights == {"a": 3, "b": 2}  # as many as there are
    assert mixture(sources, weights={"b": 0.5, "a": 1.5}).weights == {"a": 1.5, "b": 0.5}
    with pytest.raises(InputError, match="weights for \\['a'\\]"):
        mixture(sources, weights={"a": 1.0})


def test_splits():
    sources = {"a": section(2, "Parted", split="train"), "b": section(3)}
    assert mixture(sources).splits == ["a.train", "a.val", "b"]
    ids = {
        "a.val": ["a/val-0", "a/val-1"],
        "a": ["a/train-0", "a/train-1"],
        "b": ["b/train-0", "b/train-1", "b/train-2"],
        "b.val": ["b/val-0", "b/val-1", "b/val-2"],
        "val": ["a/val-0", "a/val-1", "b/val-0", "b/val-1", "b/val-2"],
    }
    for split, expected in ids.items():
        source = mixture(sources, split=split)
        assert [source[i]["id"] for i in range(len(source))] == expected
        number = {"a": 0, "b": 1}
        assert all(source[i]["source"] == number[id[0]] for i, id in enumerate(expected))
        assert source.label_names["source"] == ["a", "b"]
    with pytest.raises(InputError, match="There is no split 'vall'. Did you mean 'val'?"):
        mixture(sources, split="a.vall")


def test_labels_that_all_sources_have_are_kept():
    sources = {
        "a": section(2, labels={"kind": ["x", "y"], "only": ["z"]}),
        "b": section(2, labels={"kind": ["x", "y"]}),
    }
    source = mixture(sources)
    assert source.label_names.keys() == {"kind", "source"}
    assert all(source[i].keys() == {"id", "text", "kind", "source"} for i in range(4))
    assert mixture(sources, labels=[]).label_names.keys() == {"source"}
    with pytest.raises(InputError, match="the source 'b' has no 'only'"):
        mixture(sources, labels=["only"])


def test_labels_that_mean_something_else_are_refused():
    sources = {
        "a": section(2, labels={"kind": ["x", "y"]}),
        "b": section(2, labels={"kind": ["y", "x"]}),
    }
    for labels in (None, ["kind"]):
        with pytest.raises(InputError, match="the label 'kind' has other names in 'b'"):
            mixture(sources, labels=labels)
    sources = {name: section(2, labels={"kind": []}) for name in "ab"}
    with pytest.raises(InputError, match="'kind' has no names"):
        mixture(sources)
    assert mixture(sources, labels=["kind"]).label_names["kind"] == []
    assert mixture({"a": sources["a"]}).label_names["kind"] == []


@pytest.mark.parametrize(
    "sources, said",
    [
        ({}, "one at least"),
        ({"a/b": section(1)}, "without '/'"),
        ({"a.b": section(1)}, "without '/' and '.'"),
        ({"a": section(1), "b": {"name": "own_parts.Source"}}, "mixture: sources.b.n: missing"),
        ({"a": {"name": "emojy"}}, "sources.a.name: there is no 'emojy'. Did you mean 'emoji'?"),
        ({"a": 3}, "config.sources|should be a section|source.sources.a"),
    ],
)
def test_wrong_sources_are_refused(sources, said):
    with pytest.raises(InputError, match=said):
        mixture(sources)
