"""Folders of splits and what is in them."""

from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.folders import check_there, split_folder, walked


def test_where_a_split_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert split_folder("data/", "val") == str(tmp_path / "data/val")
    assert split_folder("~/data", None) == str(tmp_path / "me/data")
    assert split_folder({"test": "gs://b/x"}, "test") == "gs://b/x"
    assert split_folder("gs://b/x", "val") == "gs://b/x/val"
    for split in ("tst", None):
        with pytest.raises(InputError, match=f"There is no split '{split}'"):
            split_folder({"test": "x"}, split)


def test_files_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real/b/c").mkdir(parents=True)
    for name in ("z.txt", "b/c/a.jpg", "b/.hidden"):
        (tmp_path / "real" / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert walked(str(tmp_path / "linked")) == ["b/c/a.jpg", "z.txt"]
    assert walked(str(tmp_path)) == [
        "linked/b/c/a.jpg", "linked/z.txt", "real/b/c/a.jpg", "real/z.txt",
    ]  # fmt: skip
    with pytest.raises(InputError, match="cannot read .*z.txt: NotADirectoryError"):
        walked(str(tmp_path / "real/z.txt"))


def test_files_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    check_there(["a", "gs://bucket/b"], str(tmp_path), "files")
    with pytest.raises(InputError, match="2 of 3 files are missing, the first of them .*/b$"):
        check_there(["a", "b", "c"], str(tmp_path), "files")
