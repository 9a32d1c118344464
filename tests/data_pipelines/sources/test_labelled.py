"""Lists of labels against counting by hand."""

import pickle

import pytest

from data_pipelines.errors import InputError
from data_pipelines.scan import only
from data_pipelines.sources.labelled import Labels, Source

pytestmark = pytest.mark.usefixtures("own_cache")

TAGS = [["dog", "pet"], ["pet", "cat", "cat"], None, ["Cat", "pet", "dog"], []]


def inner(tags=TAGS, **arrays):
    ids = [f"r{i}" for i in range(len(tags))]
    return {"name": "arrays", "arrays": {"id": ids, "tags": tags, **arrays}}


def own(source):
    return {record["id"]: record["label"].own for record in source}


def test_numbers_are_places_in_the_sorted_pool():
    source = Source(source=inner(), field="tags")
    pool = ("Cat", "cat", "dog", "pet")
    assert [record["label"] for record in source] == [
        Labels((2, 3), pool),
        Labels((3, 1), pool),
        Labels((0, 3, 2), pool),
    ]
    assert source[2]["tags"] == TAGS[3] and source[2]["id"] == "r3" and len(source) == 3
    with pytest.raises(IndexError):
        source[3]


def test_a_label_of_few_records_is_in_no_list():
    source = Source(source=inner(), field="tags", least=2)
    assert source[0]["label"].pool == ("dog", "pet")  # "cat" twice, of one record
    assert own(source) == {"r0": (0, 1), "r1": (1,), "r3": (1, 0)}
    tags = [["a", "b"], ["b"], ["a", "c"], ["c"], ["d"], ["d", "a"]]
    source = Source(source=inner(tags), field="tags", least=3)
    assert own(source) == {"r0": (0,), "r2": (0,), "r5": (0,)}


def test_the_way_through_mappings_and_another_entry():
    said = [{"en": ["a dog"], "keywords": ["x", "y"]}, {"en": ["a cat"]}]
    source = Source(source=inner([[], []], text=said), field="text.keywords", entry="topics")
    assert [r["topics"] for r in source] == [Labels((0, 1), ("x", "y"))]
    assert "label" not in source[0]


def test_the_pool_is_that_of_the_training_split(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"id": "a", "tags": ["x", "y"]}\n{"id": "b"}\n')
    (tmp_path / "val.jsonl").write_text(
        '{"id": "c", "tags": ["z", "y"]}\n{"id": "d", "tags": ["z"]}'
    )
    files = {split: f"{tmp_path}/{split}.jsonl" for split in ("train", "val")}
    section = {"name": "table", "files": files, "split": "train"}
    train, val = (Source(source=section, field="tags", split=split) for split in (None, "val"))
    pool = ("x", "y")
    assert [(r["id"], r["label"]) for r in train] == [("a", Labels((0, 1), pool))]
    assert [(r["id"], r["label"]) for r in val] == [("c", Labels((1,), pool))]


def test_pickles_views_and_what_is_passed_on(tmp_path):
    section = inner(other=[1] * 5)
    section["label_names"] = {"other": ["no", "yes"]}
    source = Source(source=section, field="tags")
    assert own(pickle.loads(pickle.dumps(source))) == own(source)
    view = only(source, "other")
    assert own(view) == own(source) and view[0]["other"] == 1
    assert source.label_names == {"other": ["no", "yes"]} and source.folder is None


def test_what_is_no_list_of_strings_is_no_label():
    tags = [["a"], "a", ["b", 3, None], {"a": 1}, 5]
    assert own(Source(source=inner(tags), field="tags")) == {"r0": (0,), "r2": (1,)}


def test_a_record_that_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "tags": ["x"]}\n{\n{"id": "b", "tags": ["y"]}\n')
    section = {"name": "table", "files": f"{tmp_path}/a.jsonl"}
    assert own(Source(source=section, field="tags")) == {"a": (0,), "b": (1,)}


def test_a_split_without_a_label_of_the_pool(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"id": "a", "tags": ["x"]}\n')
    (tmp_path / "val.jsonl").write_text('{"id": "c", "tags": ["z"]}\n')
    files = {split: f"{tmp_path}/{split}.jsonl" for split in ("train", "val")}
    section = {"name": "table", "files": files, "split": "train"}
    with pytest.raises(InputError, match="no record of this split has a label of the pool in 'tag"):
        Source(source=section, field="tags", split="val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": "tag"}, "no record has a list of strings as its 'tag'"),
        ({"field": "id"}, "no record has a list of strings as its 'id'"),
        ({"field": "tags", "least": 4}, "no label in 'tags' is that of 4 records"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(InputError, match=message):
        Source(source=inner(), **options)


def test_keywords_of_emoji(monkeypatch):
    monkeypatch.delenv("MMCL_CACHE")  # drawn already
    section = {"name": "emoji", "split": "train", "limit": 5}
    source = Source(source=section, field="text.keywords", split="unseen_artist")
    train = Source(source=section, field="text.keywords", split="train")
    every = {word for record in train for word in record["text"]["keywords"]}
    for record in source:
        assert [record["label"].pool[i] for i in record["label"].own] == list(
            dict.fromkeys(record["text"]["keywords"])
        )
        assert record["label"].pool == tuple(sorted(every))
