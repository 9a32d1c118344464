"""Right and wrong captions of parts of pictures, from ARO's JSONs."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.aro import Source

PIXELS = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)


def aro(folder: Path, split: str = "relation", **changes: Any) -> Path:
    """A JSON in small, with what the published ones have."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(folder / "images/7.png")
    Image.fromarray(PIXELS[::-1]).save(folder / "images/3.png")
    cases: list[dict[str, Any]] = [
        {
            "image_id": f"{i}", "image_path": path, "bbox_x": 3, "bbox_y": 4 + i, "bbox_h": 6,
            "bbox_w": 8, "true_caption": f"a on b {i}", "false_caption": f"b on a {i}",
        }
        for i, path in enumerate(["7.png", "3.png", "7.png"])
    ]  # fmt: skip
    for case, relation, attributes in zip(
        cases, ("under", "on", "under"), (["red", "old"], ["big", "red"], ["red", "old"])
    ):
        more = {"relation_name": relation} if split == "relation" else {"attributes": attributes}
        case |= more
    cases[1] |= changes
    (folder / f"visual_genome_{split}.json").write_text(json.dumps(cases))
    return folder


def seen(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_a_record_a_case(tmp_path: Path, remote: Any) -> None:
    aro(tmp_path / "aro")
    source = Source(folder=str(tmp_path / "aro"), split="relation")
    assert len(source) == 3
    records = [source[i] for i in range(3)]
    assert [record["id"] for record in records] == ["0", "1", "2"]
    assert records[1]["text"] == ["a on b 1", "b on a 1"]
    assert source.label_names == {"relation": ["on", "under"], "picture": ["7.png", "3.png"]}
    assert [record["relation"] for record in records] == [1, 0, 1]
    assert [record["picture"] for record in records] == [0, 1, 0]
    np.testing.assert_array_equal(seen(records[0]["image"]), PIXELS[4:10, 3:11])
    np.testing.assert_array_equal(seen(records[1]["image"]), PIXELS[::-1][5:11, 3:11])
    assert source.only("text", "relation")[2] == {
        "id": "2", "text": ["a on b 2", "b on a 2"], "relation": 1,
    }  # fmt: skip
    assert source.only("image").only("image")[0].keys() == {"id", "image"}
    assert source.only("picture")[1] == {"id": "1", "picture": 1}
    assert pickle.loads(pickle.dumps(source))[2] == records[2]
    assert len(Source(folder=str(tmp_path / "aro"), split="relation", limit=2)) == 2
    with pytest.raises(IndexError):
        source[3]
    url = remote.put_folder(tmp_path / "aro")
    assert [*Source(folder=url, split="relation")] == records


def test_attributes_are_the_relation_of_the_other_split(tmp_path: Path) -> None:
    source = Source(folder=str(aro(tmp_path, "attribution")), split="attribution")
    assert source.label_names["relation"] == ["big_red", "red_old"]
    assert [record["relation"] for record in source] == [1, 0, 1]


def test_a_box_over_the_edge(tmp_path: Path) -> None:
    edge = Source(folder=str(aro(tmp_path, bbox_x=-2, bbox_w=5.0, bbox_y=18)), split="relation")
    np.testing.assert_array_equal(seen(edge[1]["image"]), PIXELS[::-1][18:20, 0:3])
    outside = Source(folder=str(aro(tmp_path, bbox_x=30)), split="relation")
    with pytest.raises(Fault, match="holds nothing of the picture"):
        outside[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(true_caption=""), "'true_caption' of case 1 of .*relation.json is '', and should be"),
        (dict(image_path=3), "'image_path' of case 1 of .* is 3, and should be a string"),
        (dict(bbox_w=None), "'bbox_w' of case 1 of .* is None, and should be a number"),
        (dict(image_path="4.png"), "1 of 2 pictures are missing, the first of them .*images/4.png"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Source(folder=str(aro(tmp_path, **changes)), split="relation")


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "visual_genome_relation.json is missing"),
        ("[{", "visual_genome_relation.json is no JSON"),
        ("{}", "should be a list of cases, and is {}"),
        ("[]", "should be a list of cases"),
        ("[3]", "case 0 of .* is 3, and should be an object"),
    ],
)
def test_no_cases(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "visual_genome_relation.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Source(folder=str(tmp_path), split="relation")
