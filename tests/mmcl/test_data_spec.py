"""How data is named on the command line."""

import json
from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from mmcl.data_spec import config_of, is_experiment, name_of_spec


@pytest.mark.parametrize(
    "spec, name",
    [
        ("data/{000..009}.tar", "webdataset"),
        ("gs://bucket/a-*.parquet", "parquet"),
        ("a.jsonl", "table"),
        ("a.CSV", "table"),
        ("{a,b}.arrayrecord", "arrayrecord"),
        ("x.npz", "arrays"),
    ],
)
def test_files_are_known_by_their_ending(spec, name):
    assert config_of(spec)["source"] == {"name": name, "files": spec}


def test_an_experiment_is_its_whole_config():
    config = config_of("experiments/quickstart.py:runlocal", "unseen_both", [("source.limit", "7")])
    assert config["source"] == {"name": "emoji", "split": "unseen_both", "limit": 7}
    assert "transforms" in config
    assert is_experiment("mine.py") and is_experiment("a/b.py:runlocal")
    assert not is_experiment("a.python.tar")


def test_a_section_beside_its_files(tmp_path: Path):
    section = {"name": "parquet", "files": {"train": "a-*.parquet", "val": ["s3://b/c.parquet"]}}
    (tmp_path / "source.json").write_text(json.dumps(section))
    for spec in (tmp_path, tmp_path / "source.json"):
        files = config_of(str(spec))["source"]["files"]
        assert files == {"train": f"{tmp_path}/a-*.parquet", "val": ["s3://b/c.parquet"]}


def test_a_folder_of_tfds(tmp_path: Path):
    (tmp_path / "dataset_info.json").write_text("{}")
    found = config_of(str(tmp_path), "test")["source"]
    assert found == {"name": "tfds", "folder": str(tmp_path), "split": "test"}


@pytest.mark.parametrize(
    "spec, message",
    [
        ("a.zip", r"^What is 'a.zip'\? Files end in .tar, "),
        ("{a.tar,b.csv}", "^What is "),
        ("there_is_none.json", "there_is_none.json is missing"),
        ("there_is_none.py", "There is no experiment file 'there_is_none.py'"),
        (".", "is a folder without source.json or dataset_info.json"),
    ],
)
def test_what_cannot_be_meant(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        config_of(spec)


def test_what_is_no_section(tmp_path: Path):
    for text in ("[1]", '{"files": "a"}', "{"):
        (tmp_path / "one.json").write_text(text)
        with pytest.raises(InputError, match="one.json"):
            config_of(str(tmp_path / "one.json"))


@pytest.mark.parametrize(
    "spec, name",
    [
        ("experiments/quickstart.py:runlocal", "quickstart-runlocal"),
        ("data/{000..009}.tar", "data-000..009"),
        ("s3://bucket/cc/train-*.parquet", "cc-train"),
        ("molecules/source.json", "molecules"),
        ("/", "data"),
    ],
)
def test_names_for_folders(spec, name):
    assert name_of_spec(spec) == name
