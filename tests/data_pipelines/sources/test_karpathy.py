"""Karpathy's JSON of COCO and Flickr30k."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.karpathy import Source


def coco(folder: Path) -> Path:
    """dataset_coco.json in small: seven pictures, those of three splits in one folder."""
    images = []
    for i, split in enumerate(["test", "restval", "val", "train", "test", "restval", "test"]):
        place = "train2014" if split == "train" else "val2014"
        name = f"COCO_{place}_{i:012d}.jpg"
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / name).write_bytes(f"picture {i}".encode())
        sentences = [
            {"tokens": [], "raw": f"caption {k} of {i}. ", "imgid": i, "sentid": 10 * i + k}
            for k in range(5 + i % 2)
        ]
        images.append(
            {"filepath": place, "sentids": [], "filename": name, "imgid": i, "split": split,
             "sentences": sentences, "cocoid": 1000 + i}
        )  # fmt: skip
    file = folder / "dataset_coco.json"
    file.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return file


def flickr(folder: Path) -> Path:
    (folder / "flickr30k-images").mkdir(parents=True)
    images = []
    for i, split in enumerate(["train", "test", "val", "test"]):
        (folder / f"flickr30k-images/{i}00.jpg").write_bytes(f"picture {i}".encode())
        sentences = [{"tokens": [], "raw": f"{i} {k}", "imgid": i} for k in range(5)]
        images.append(
            {"sentids": [], "imgid": i, "sentences": sentences, "split": split,
             "filename": f"{i}00.jpg"}
        )  # fmt: skip
    file = folder / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    return file


def test_exactly_the_records_of_the_split(tmp_path: Path) -> None:
    file = str(coco(tmp_path))
    source = Source(file=file, split="test")
    assert [record["id"] for record in source] == ["1000", "1004", "1006"]
    assert source[1] == {
        "id": "1004",
        "image": b"picture 4",
        "text": [f"caption {k} of 4." for k in range(5)],
    }
    ids = {split: [r["id"] for r in Source(file=file, split=split)] for split in ("val", "restval")}
    assert ids == {"val": ["1002"], "restval": ["1001", "1005"]}
    assert len(Source(file=file, split="restval")[0]["text"]) == 6
    assert pickle.loads(pickle.dumps(source))[2] == source[2]
    assert len(Source(file=file, split="test", limit=2)) == 2


def test_flickr_has_its_pictures_in_a_folder(tmp_path: Path) -> None:
    file, folder = str(flickr(tmp_path)), str(tmp_path / "flickr30k-images")
    source = Source(file=file, folder=folder, split="test")
    assert [record["id"] for record in source] == ["100.jpg", "300.jpg"]
    assert source[1]["image"] == b"picture 3" and source[1]["text"][4] == "3 4"


def test_missing_pictures_are_said(tmp_path: Path) -> None:
    file = str(coco(tmp_path))
    before = Source(file=file, split="test")
    (tmp_path / "val2014/COCO_val2014_000000000004.jpg").unlink()
    with pytest.raises(InputError, match="1 of 3 pictures of 'test' are missing, .*0004.jpg"):
        Source(file=file, split="test")
    with pytest.raises(Fault, match="missing_file: .*0004.jpg is missing"):
        before[1]
    assert before.only("text")[1]["text"] == [f"caption {k} of 4." for k in range(5)]
    with pytest.raises(IndexError):
        before[3]


def test_at_a_url(tmp_path: Path, remote: Any) -> None:
    file = coco(tmp_path / "coco")
    url = remote.put_folder(tmp_path / "coco")
    here = Source(file=str(file), split="test")
    assert list(Source(file=f"{url}/dataset_coco.json", split="test")) == list(here)


@pytest.mark.parametrize(
    "text, split, message",
    [
        (None, "tests", "There is no split 'tests' in .*dataset_coco.json. Did you mean 'test'?"),
        ("{", "test", "is not Karpathy's: no JSON with 'images'"),
        ("[]", "test", "is not Karpathy's: no JSON with 'images'"),
        ('{"images": {}}', "test", "its 'images' are no list"),
        ('{"images": [{"split": "test"}]}', "test", "lacks 'split', 'filename' or 'sentences'"),
    ],
)
def test_another_file(tmp_path: Path, text: str | None, split: str, message: str) -> None:
    file = coco(tmp_path)
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message):
        Source(file=str(file), split=split)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dataset_coco.json is missing"):
        Source(file=str(tmp_path / "dataset_coco.json"), split="test")
