"""From any format to any other: the same records, whatever stops it."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines import convert as module
from data_pipelines import records as packed
from data_pipelines.convert import convert
from data_pipelines.errors import InputError
from data_pipelines.open_source import open_source
from data_pipelines.portable import digest, portable

FORMATS = ["arrayrecord", "webdataset", "parquet", "jsonl", "csv"]


def picture(number, kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def record(number):
    """Of a flat kind, which a CSV holds too; some lack an entry."""
    made = {
        "id": f"zoo/ä {number}",
        "image": picture(number, "JPEG" if number % 3 else "PNG"),
        "text": f'animal no. {number}, "größer";\nzweite Zeile',
        "score": number / 7,
        "kind": number % 3,
        "sound": b"OggS" + bytes([number]) * 9,
    }
    if number % 4 == 1:
        del made["sound"]
    if number % 5 == 2:
        del made["text"]
    return made


def rich(number):
    made = {**record(number), "captions": {"en": ["a", "b"], "de": [f"Tier {number}"]}}
    made["vector"] = [0.5, number / 3, -1.25]
    if number % 2:
        del made["captions"]["de"]
    return made


@pytest.fixture
def zoo(tmp_path):
    """(records, name) -> the section of a source with them."""

    def made(records, name="zoo"):
        packed.write(tmp_path / f"{name}.arrayrecord", records)
        section = {"name": "arrayrecord", "files": str(tmp_path / f"{name}.arrayrecord")}
        return {**section, "label_names": {"kind": ["cat", "dog", "cow"]}}

    return made


def opened(folder):
    section = json.loads((folder / "source.json").read_text())
    return open_source({**section, "files": str(folder / section["files"])})


def digests(source):
    return [digest(portable(source[i])) for i in range(len(source))]


@pytest.mark.parametrize("to", FORMATS)
def test_every_record_comes_through(zoo, tmp_path, to):
    flat = to == "csv"
    section = zoo([(record if flat else rich)(i) for i in range(23)])
    told = []
    made = convert(section, tmp_path / "out", to, shard=10, advance=told.append)
    assert (made.records, made.rejected, told) == (23, [], [10, 10, 3])
    source = opened(tmp_path / "out")
    assert digests(source) == digests(open_source(section))
    assert source.label_names == {"kind": ["cat", "dog", "cow"]}
    assert source[4]["id"] == "zoo/ä 4" and source[4]["kind"] == 1
    assert len(list((tmp_path / "out").glob(f"{'data'}-*-of-00003.*"))) == 3


@pytest.mark.parametrize("first", FORMATS)
def test_and_back(zoo, tmp_path, first):
    section = zoo([record(i) for i in range(9)])
    convert(section, tmp_path / "one", first, shard=4)
    between = json.loads((tmp_path / "one/source.json").read_text())
    between["files"] = str(tmp_path / "one" / between["files"])
    convert(between, tmp_path / "two", "arrayrecord", shard=5)
    assert digests(opened(tmp_path / "two")) == digests(open_source(section))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("to", ["webdataset", "jsonl", "parquet"])
def test_what_was_stopped_goes_on_and_is_the_same_to_the_byte(zoo, tmp_path, to, monkeypatch):
    section = zoo([record(i) for i in range(12)])
    convert(section, tmp_path / "whole", to, shard=5)
    real, seen, reads = module.portable, [], 17 if to == "parquet" else 12

    def stopping(value):
        seen.append(value)
        if len(seen) > reads and not resumed:
            raise KeyboardInterrupt
        return real(value)

    resumed = False
    monkeypatch.setattr(module, "portable", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert(section, tmp_path / "cut", to, shard=5)
    there = [p.name for p in (tmp_path / "cut").iterdir()]
    assert "manifest.json" in there and "source.json" not in there and ".unfinished" not in there
    first = next((tmp_path / "cut").glob("data-00000-*.*"))
    written = first.stat().st_mtime_ns
    resumed = True
    convert(section, tmp_path / "cut", to, shard=5)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert first.stat().st_mtime_ns == written  # what was finished was not written again


def test_a_damaged_shard_is_written_again(zoo, tmp_path):
    section = zoo([record(i) for i in range(6)])
    convert(section, tmp_path / "out", "webdataset", shard=3)
    tar = tmp_path / "out/data-00001-of-00002.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700] + b"x" + whole[701:])
    convert(section, tmp_path / "out", "webdataset", shard=3)
    assert tar.read_bytes() == whole


def test_another_conversion_keeps_its_folder(zoo, tmp_path):
    section = zoo([record(i) for i in range(3)])
    convert(section, tmp_path / "out", "jsonl")
    with pytest.raises(InputError, match="holds a conversion with another 'to'"):
        convert(section, tmp_path / "out", "parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and no conversion"):
        convert(section, tmp_path / "full", "jsonl")


def test_a_record_that_cannot_be_read_is_left_out_and_told(zoo, tmp_path):
    section = zoo([record(i) if i != 3 else {**record(3), "image": b"x" * 5000} for i in range(6)])
    made = convert({**section, "largest": 3000}, tmp_path / "out", "parquet", shard=4)
    assert made.records == 5
    [reject] = map(json.loads, (tmp_path / "out/rejected.jsonl").read_text().splitlines())
    assert (reject["index"], reject["kind"]) == (3, "too_large")
    assert [opened(tmp_path / "out")[i]["id"] for i in (2, 3)] == ["zoo/ä 2", "zoo/ä 4"]


@pytest.mark.parametrize(
    "to, change, message",
    [
        ("csv", {"captions": ["a"]}, "'captions' of record 'zoo/ä 0' is a list: a cell"),
        ("jsonl", {"speech": {"en": b"OggS"}}, "'speech' of record 'zoo/ä 0' holds bytes in"),
        ("webdataset", {"speech": [b"OggS"]}, "'speech' of record 'zoo/ä 0' holds bytes in"),
    ],
)
def test_what_a_format_cannot_hold(zoo, tmp_path, to, change, message):
    section = zoo([{**record(0), **change}])
    with pytest.raises(InputError, match=message):
        convert(section, tmp_path / "out", to)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_format_that_loses_something_is_found_out(zoo, tmp_path, monkeypatch):
    (tmp_path / "lossy.py").write_text(
        "from data_pipelines.writers import jsonl\n"
        "SOURCE, ENDING = 'table', 'jsonl'\n"
        "def write(path, records):\n"
        "    return jsonl.write(path, ({**r, 'kind': 0} for r in records))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="record 1 does not read back as it was written"):
        convert(zoo([record(i) for i in range(3)]), tmp_path / "out", "lossy")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_name_of_another_format_is_taken(zoo, tmp_path):
    with pytest.raises(InputError, match="--to: there is no 'parkuet'. Did you mean 'parquet'"):
        convert(zoo([record(0)]), tmp_path / "out", "parkuet")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
