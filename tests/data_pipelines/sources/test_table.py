"""Tables against csv, json and pyarrow.csv, which read them from the start to the end."""

import csv
import io
import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.table import Source, rows

pytestmark = pytest.mark.usefixtures("own_cache")
CELL = st.text(st.sampled_from('ab "\n\r,;\tüλ😀'), max_size=8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=6),
    st.sampled_from(["csv", "tsv"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_cells_of_any_text(tmp_path, cells, kind, end, mark):
    path = tmp_path / f"t.{kind}"
    with path.open("w", newline="", encoding="utf-8-sig" if mark else "utf-8") as file:
        separator = "\t" if kind == "tsv" else ","
        writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([["a", "b c", "ü"], *cells])
    parsed = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(["a", "b c", "ü"], pa.string())
        ),
    ).to_pylist()
    assert [list(row.values()) for row in parsed] == cells
    source = Source(files=str(path))
    for i in random.Random(0).sample(range(len(cells)), len(cells)):
        assert source[i] == {"id": f"t.{kind}/{i}", **parsed[i]}
    assert list(rows(io.BytesIO(path.read_bytes()), str(path))) == parsed


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.sampled_from("xyz"), VALUE), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
    st.booleans(),
)
def test_json_of_any_shape(tmp_path, objects, ascii, end, last, mark):
    path = tmp_path / "t.jsonl"
    text = end.join(json.dumps(row, ensure_ascii=ascii) for row in objects) + end * last
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    source = Source(files=str(path))
    want = [{"id": f"t.jsonl/{i}", **row} for i, row in enumerate(objects)]
    assert list(source) == want
    assert list(rows(io.BytesIO(path.read_bytes()), str(path))) == objects


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for shard, n in enumerate([4, 1, 3]):
        with (folder / f"t-{shard}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filepath", "title", "breed", "score"])
            for i in range(n):
                (folder / f"images/{shard}{i}.jpg").write_bytes(f"picture {shard}{i}".encode())
                title = f"line one\nline {shard}{i}"
                writer.writerow([f"images/{shard}{i}.jpg", title, ["cat", "dog"][i % 2], i / 2])
    return folder


OPTIONS = {
    "fields": {"image": "filepath", "text": "title", "breed": "breed", "score": "score"},
    "paths": ["image"],
    "numbers": ["score"],
    "label_names": {"breed": ["cat", "dog"]},
}


def test_pictures_in_a_folder_wherever_it_lies(folder, remote):
    want = [
        {
            "id": f"t-{shard}.csv/{i}",
            "image": f"picture {shard}{i}".encode(),
            "text": f"line one\nline {shard}{i}",
            "breed": i % 2,
            "score": i / 2,
        }
        for shard, n in enumerate([4, 1, 3])
        for i in range(n)
    ]
    for base in (str(folder), remote.put_folder(folder)):
        source = Source(files=[f"{base}/t-{i}.csv" for i in (2, 0, 1)], **OPTIONS)
        assert [source[i] for i in (6, 0, 5, 1, 4, 2, 7, 3)] == [
            want[i] for i in (6, 0, 5, 1, 4, 2, 7, 3)
        ]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda i, of=source: of[i % 8], range(80))) == want * 10
        assert list(pickle.loads(pickle.dumps(source))) == want
        assert len(pickle.dumps(source)) < 3000
        assert list(Source(files=f"{base}/t-*.csv", limit=5, **OPTIONS)) == want[:5]
        assert source.label_names == {"breed": ["cat", "dog"]}


def test_only_rows_that_are_asked_for_are_read(folder, remote):
    source = Source(files=f"{remote.put_folder(folder)}/t-*.csv", **OPTIONS)
    assert not remote.asked
    assert source.only("score")[6] == {"id": "t-2.csv/1", "score": 0.5}
    assert len(remote.asked) == 1 and remote.asked[0] < 60


def test_json_goes_deep_and_has_its_own_ids(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 7, "meta": {"caption": "a dog"}}\n{"id": "b"}\n{"meta": null}\n')
    source = Source(files=str(path), fields={"text": "meta.caption"})
    assert [source[0], source[1]] == [{"id": "7", "text": "a dog"}, {"id": "b", "text": None}]
    with pytest.raises(Fault, match="'id', which is the id, is missing in t.jsonl/2") as error:
        source[2]
    assert error.value.kind == "missing_field"


def test_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("n\n3\n2.5\n\n1e3\nnan\n''\nx\n")
    source = Source(files=str(path), numbers=["n"])
    found = [source[i]["n"] for i in range(4)]
    assert str(found) == "[3, 2.5, 1000.0, nan]" and type(found[0]) is int
    with pytest.raises(Fault, match="n of t.csv/5 is 'x'") as error:
        source[5]
    assert error.value.kind == "bad_number"
    path.write_text('n,m\n"",a\n')
    assert Source(files=str(path), numbers=["n"])[0]["n"] is None


def test_a_bad_row_spoils_itself_alone(tmp_path):
    lines = [
        b'{"a": 1}',
        b"{",
        b"[1]",
        b'{"a": "\xff"}',
        b'{"a": 2}',
        b'{"a": "' + b"x" * 99 + b'"}',
    ]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,\n2\n3,4,5\n\xff,1\n2,\n" + b"x" * 99 + b",1")
    for name in ("t.jsonl", "t.csv"):
        source, found = Source(files=str(tmp_path / name), largest=80), []
        for i in range(len(source)):
            try:
                found.append(source[i]["a"])
            except Fault as fault:
                assert f"{name}/{i}" in fault.reason and "\n" not in fault.reason
                found.append(fault.kind)
        good = [1, 2] if name == "t.jsonl" else ["1", "2"]
        assert found == [good[0], "bad_row", "bad_row", "bad_row", good[1], "too_large"]


def test_quotation_marks_as_letters(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('text\turl\n"Hello" she said\tx\n5" disk\ty\n')
    with pytest.raises(InputError, match="t.tsv, row 1, at byte 9: .*quotes=False") as error:
        Source(files=str(path))
    assert "\n" not in str(error.value)
    source = Source(files=str(path), quotes=False)
    assert [record["text"] for record in source] == ['"Hello" she said', '5" disk']
    path.write_text('text\n"never closed\nmore\n')
    with pytest.raises(InputError, match="t.tsv, row 1"):
        Source(files=str(path))


def test_what_is_wrong_with_the_whole_is_said(folder, tmp_path):
    (tmp_path / "a.csv").write_text("x,x\n1,2\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("x,y\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    (tmp_path / "other.csv").write_text("filepath,titel\n1,2\n")
    for files, options, message in (
        (f"{tmp_path}/a.csv", {}, r"several columns called \['x'\]"),
        (f"{tmp_path}/empty.csv", {}, "empty.csv is empty"),
        (f"{tmp_path}/header.csv", {}, "no record in .*header.csv"),
        (f"{tmp_path}/x.csv.gz", {}, "is compressed"),
        (f"{tmp_path}/x.txt", {}, "x.txt is no table"),
        ([f"{tmp_path}/a.csv", f"{tmp_path}/b.jsonl"], {}, "do not go together"),
        (f"{folder}/t-0.csv", {"fields": {"a": "titel"}}, "no 'titel'. Did you mean 'title'"),
        (f"{folder}/t-0.csv", {"id": "uid"}, "id: there is no 'uid'"),
        (f"{folder}/t-0.csv", {"paths": ["file"]}, "paths.file: unknown key"),
        (f"{folder}/t-0.csv", {"numbers": ["scor"]}, "numbers.scor: unknown key"),
        ([f"{folder}/t-0.csv", f"{tmp_path}/other.csv"], {}, "other.csv: fields.title"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Source(files=files, **options)
        assert "\n" not in str(error.value)


def test_a_table_that_goes_or_changes(folder, remote):
    url = remote.put_folder(folder)
    sources = [Source(files=f"{base}/t-*.csv", fields={"t": "title"}) for base in (folder, url)]
    (folder / "t-1.csv").unlink()
    remote.store.pop("/bucket/t-1.csv")
    for source in sources:
        with pytest.raises(Fault, match="t-1.csv is missing") as error:
            source[4]
        assert error.value.kind == "vanished_shard"
        assert source[5]["id"] == "t-2.csv/0"
    (folder / "t-2.csv").write_text("title\nanother\n")
    assert Source(files=f"{folder}/t-2.csv")[0]["title"] == "another"


def test_files_of_one_name_need_an_id(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(f"key\n{name}\n")
    with pytest.raises(InputError, match="2 files are called t.csv"):
        Source(files=f"{tmp_path}/*/t.csv")
    found = [record["id"] for record in Source(files=f"{tmp_path}/*/t.csv", id="key")]
    assert found == ["a", "b"]
