"""Tars in the layout of CLIP_benchmark, written by the webdataset library."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import webdataset

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.clip_benchmark import Source

pytestmark = pytest.mark.usefixtures("own_cache")


def tars(folder: Path, shards: list[list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True)
    (folder / "nshards.txt").write_text(str(len(shards)))
    for number, records in enumerate(shards):
        with webdataset.TarWriter(str(folder / f"{number}.tar")) as writer:
            for record in records:
                writer.write(record)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "wds_pets"
    made = [
        {"__key__": f"s{i:07d}", ["webp", "jpg", "png"][i % 3]: f"picture {i}".encode(),
         "cls": i % 3}
        for i in range(24)
    ]  # fmt: skip
    tars(folder / "test", [made[2 * k : 2 * k + 2] for k in range(12)])
    tars(folder / "train", [made[:1]])
    (folder / "classnames.txt").write_text("Abyssinian\nbengal cat\nboxer \n")
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    folder = tmp_path / "wds_flickr8k"
    text = ["one dog\nred ball\n", "  two\r\n\nthree", "alone"]
    tars(
        folder / "test",
        [[{"__key__": f"s{i}", "jpg": b"x%d" % i, "txt": t.encode()} for i, t in enumerate(text)]],
    )
    (folder / "dataset_type.txt").write_text("Retrieval\n")
    return folder


def test_classes(classes: Path) -> None:
    source = Source(folder=str(classes), split="test")
    assert source.label_names == {"class": ["Abyssinian", "bengal cat", "boxer"]}
    assert len(source) == 24 and len(Source(folder=str(classes), split="train")) == 1
    found = {record["id"]: record for record in source}
    assert found["11.tar/s0000023"] == {
        "id": "11.tar/s0000023", "image": b"picture 23", "class": 2,
    }  # fmt: skip
    assert {int(one["image"].split()[1]) % 3 == one["class"] for one in source} == {True}
    assert len(found) == 24
    assert source.only("class")[0] == {"id": "0.tar/s0000000", "class": 0}
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_a_class_without_a_name(classes: Path) -> None:
    (classes / "classnames.txt").write_text("Abyssinian\n\n")
    source = Source(folder=str(classes), split="test")
    assert source[1]["class"] == 1 and source.label_names == {"class": ["Abyssinian", ""]}
    with pytest.raises(Fault, match="bad_label: 10.tar/s0000020 is of class 2 of 2"):
        source[4]


def test_a_caption_a_line(captions: Path) -> None:
    source = Source(folder={"flickr8k-test": str(captions / "test")}, split="flickr8k-test")
    assert [record["text"] for record in source] == [["one dog", "red ball"], ["two", "three"],
                                                     ["alone"]]  # fmt: skip
    assert source.label_names == {} and source[1]["image"] == b"x1"


def test_at_a_url(classes: Path, remote: Any) -> None:
    url = remote.put_folder(classes)
    here = Source(folder=str(classes), split="test")
    assert list(Source(folder=url, split="test")) == list(here)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("test/nshards.txt", None, "test/nshards.txt is missing"),
        ("test/nshards.txt", "many", "should be the number of tars, not 'many'"),
        ("test/nshards.txt", "13", "12.tar is missing"),
        ("classnames.txt", None, "classnames.txt is missing"),
        ("dataset_type.txt", "multilabel", "is of the type 'multilabel', which cannot be read"),
        ("dataset_type.txt", "retrieval", "fields.text: there is no 'txt'"),
    ],
)
def test_what_is_wrong_is_said(classes: Path, name: str, text: str | None, message: str) -> None:
    if text is None:
        (classes / name).unlink()
    else:
        (classes / name).write_text(text)
    with pytest.raises(InputError, match=message):
        Source(folder=str(classes), split="test")
