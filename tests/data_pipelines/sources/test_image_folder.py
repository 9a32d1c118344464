"""A folder a class, as ImageNet and its kin lay them out."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.image_folder import Source

WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361"]
NAMES = ["tench", "goldfish", "great white shark", "tiger shark"]


def put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(f"picture {path}".encode())


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """torchvision's ImageNet, with two classes of four, and what else lies about."""
    folder = tmp_path / "imagenet"
    put(
        folder / "val",
        "n01484850/ILSVRC2012_val_00000003.JPEG",
        "n01440764/ILSVRC2012_val_00000293.JPEG",
        "n01440764/ILSVRC2012_val_00002138.JPEG",
        "n01440764/.DS_Store",
        "n01440764/Thumbs.db",
        ".cache/x.JPEG",
        "README.txt",
        "stray.JPEG",
    )
    put(folder / "train", "n01443537/n01443537_1.JPEG")
    return folder


def classes(source: Source) -> dict[str, str]:
    """id -> name of the class."""
    assert pickle.loads(pickle.dumps(source))[0] == source[0]
    return {record["id"]: source.label_names["class"][record["class"]] for record in source}


def test_the_split_that_is_asked_for_and_no_other(imagenet: Path) -> None:
    options: Any = dict(folder=str(imagenet), classes=WNIDS, class_names=NAMES)
    source = Source(split="val", **options)
    assert [record["id"] for record in source] == [
        "n01440764/ILSVRC2012_val_00000293.JPEG",
        "n01440764/ILSVRC2012_val_00002138.JPEG",
        "n01484850/ILSVRC2012_val_00000003.JPEG",
    ]
    assert source[2] == {
        "id": "n01484850/ILSVRC2012_val_00000003.JPEG",
        "image": b"picture n01484850/ILSVRC2012_val_00000003.JPEG",
        "class": 2,
    }
    assert source.label_names == {"class": NAMES}
    assert set(classes(source).values()) == {"tench", "great white shark"}
    assert classes(Source(split="train", **options)) == {"n01443537/n01443537_1.JPEG": "goldfish"}


def test_only_the_classes_that_have_pictures(imagenet: Path) -> None:
    folder = {"test": str(imagenet / "val")}
    options: Any = dict(folder=folder, split="test", classes=WNIDS, class_names=NAMES)
    every, present = Source(**options), Source(**options, only_present=True)
    assert present.label_names == {"class": ["tench", "great white shark"]}
    assert [record["class"] for record in present] == [0, 0, 1]
    assert classes(present) == classes(every)


@hypothesis.given(st.sets(st.integers(0, 30), min_size=1), st.booleans())
@hypothesis.settings(
    max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_numbered_folders_are_not_sorted_as_words(
    tmp_path: Path, numbers: set[int], only_present: bool
) -> None:
    """ImageNetV2: `10` comes before `2` in a listing."""
    folder = tmp_path / "v2"
    shutil.rmtree(folder, ignore_errors=True)
    put(folder, *(f"{number}/a{number}.jpeg" for number in numbers))
    names = [f"class {i}" for i in range(31)]
    source = Source(
        folder=str(folder),
        classes=[str(i) for i in range(31)],
        class_names=names,
        only_present=only_present,
    )
    assert classes(source) == {f"{i}/a{i}.jpeg": f"class {i}" for i in numbers}
    kept = [f"class {i}" for i in sorted(numbers)] if only_present else names
    assert source.label_names["class"] == kept


def test_without_a_list_the_folders_are_the_classes(imagenet: Path) -> None:
    source = Source(folder=str(imagenet / "val"), limit=2)
    assert source.label_names == {"class": ["n01440764", "n01484850"]} and len(source) == 2


def test_no_more_is_read_than_is_asked_for(imagenet: Path) -> None:
    source = Source(folder=str(imagenet), split="val")
    shutil.rmtree(imagenet / "val/n01440764")
    assert source.only("class")[0] == {"id": source.only()[0]["id"], "class": 0}
    with pytest.raises(Fault, match="missing_file: .*val_00000293.JPEG is missing"):
        source[0]
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(Fault, match="too_large"):
        Source(folder=str(imagenet), split="val", largest=5)[0]


def test_at_a_url(imagenet: Path, remote: Any) -> None:
    url = remote.put_folder(imagenet)
    options: Any = dict(split="val", classes=WNIDS)
    assert list(Source(folder=url, **options)) == list(Source(folder=str(imagenet), **options))
    with pytest.raises(InputError, match="bucket/test is missing, or empty"):
        Source(folder=url, split="test")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(split="vall"), "vall is missing"),
        (dict(classes=["n01440765", *WNIDS[1:]], split="val"),
         "1 of 2 folders in .*val are of no class, the first of them 'n01440764'; did you mean "
         "'n01440765'?"),
        (dict(classes=["a"], split="val"), "2 of 2 folders .* 'n01440764'$"),
        (dict(classes=WNIDS, class_names=["a"], split="val"), "there are 1 for 4 different"),
        (dict(classes=[*WNIDS, WNIDS[0]], split="val"), "4 different classes of 5"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(imagenet: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Source(folder=str(imagenet), **options)
    with pytest.raises(InputError, match="There is no split 'tset'. Did you mean 'test'?"):
        Source(folder={"test": str(imagenet)}, split="tset")


def test_a_folder_without_pictures(imagenet: Path) -> None:
    (imagenet / "other").mkdir()
    with pytest.raises(InputError, match="other is missing, or empty"):
        Source(folder=str(imagenet), split="other")
    (imagenet / "other/a.txt").touch()
    with pytest.raises(InputError, match="other holds no folders of pictures"):
        Source(folder=str(imagenet), split="other")
