"""Pairs of pictures and captions from JSON lines."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from data_pipelines.sources.winoground import Source


def winoground(folder: Path, pairs: int = 3, **changes: Any) -> Path:
    """examples.jsonl in small."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(pairs):
        for k in (0, 1):
            (folder / f"images/ex_{i}_img_{k}.png").write_bytes(f"picture {i} {k}".encode())
        line = {
            "id": i + 10, "image_0": f"ex_{i}_img_0", "image_1": f"ex_{i}_img_1",
            "caption_0": f"a {i} b", "caption_1": f"b {i} a", "tag": "Object", "num_main_preds": 1,
        }  # fmt: skip
        lines.append(json.dumps(line | changes))
    file = folder / "examples.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_two_records_a_pair(tmp_path: Path, remote: Any) -> None:
    file = winoground(tmp_path / "w")
    source = Source(file=str(file), split="test")
    assert len(source) == 6
    assert [record["pair"] for record in source] == [0, 0, 1, 1, 2, 2]
    assert [source[2], source[3]] == [
        {"id": "11/0", "image": b"picture 1 0", "text": "a 1 b", "pair": 1},
        {"id": "11/1", "image": b"picture 1 1", "text": "b 1 a", "pair": 1},
    ]
    assert source.label_names == {"pair": ["10", "11", "12"]}
    assert source.only("pair")[5] == {"id": "12/1", "pair": 2}
    assert pickle.loads(pickle.dumps(source))[5] == source[5]
    with pytest.raises(IndexError):
        source[6]
    url = remote.put_folder(tmp_path / "w")
    assert list(Source(file=f"{url}/examples.jsonl")) == list(source)


def test_names_that_have_an_ending(tmp_path: Path) -> None:
    file = winoground(tmp_path, pairs=1, image_0="cat.jpg", image_1="ex_0_img_1.png")
    (tmp_path / "images/cat.jpg").write_bytes(b"a cat")
    assert [record["image"] for record in Source(file=str(file))] == [b"a cat", b"picture 0 1"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(caption_1=None), "'caption_1' of the pair 10 is None, and should be a string"),
        (dict(image_0=3), "'image_0' of the pair 10 is 3"),
        (dict(image_0="dog"), "3 of 6 pictures are missing, the first of them .*images/dog.png"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Source(file=str(winoground(tmp_path, **changes)))


def test_no_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="examples.jsonl is missing"):
        Source(file=str(tmp_path / "examples.jsonl"))
    (tmp_path / "examples.jsonl").touch()
    with pytest.raises(InputError, match="examples.jsonl has no lines"):
        Source(file=str(tmp_path / "examples.jsonl"))
