"""Parquet against pyarrow's own reading of whole tables."""

import json
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import arrow, memory
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources import parquet
from data_pipelines.sources.parquet import Groups, Source

FEATURES = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}


def table(shard: int, rows: int) -> pa.Table:
    rng = random.Random(shard)
    images = [{"bytes": rng.randbytes(300), "path": f"{i}.jpg"} for i in range(rows)]
    images[0] = {"bytes": None, "path": "pictures/one.jpg"}
    if rows > 2:
        images[1], images[2] = None, {"bytes": None, "path": None}
    columns = {
        "image": pa.array(images),
        "text": [f"text {shard} {i} ü" for i in range(rows)],
        "caps": [[f"a {i}", "b"] for i in range(rows)],
        "label": [i % 2 for i in range(rows)],
        "z": pa.array([[float(i), 2.5] for i in range(rows)], pa.list_(pa.float32(), 2)),
        "meta": [{"author": {"name": f"me {i}"}, "n": i} for i in range(rows)],
        "url": [f"https://x.org/{shard}/{i}" for i in range(rows)],
    }
    about = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    return pa.table(columns).replace_schema_metadata(about)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures/one.jpg").write_bytes(b"picture one")
    for shard, rows in enumerate([7, 1, 5]):
        pq.write_table(table(shard, rows), folder / f"t-{shard}.parquet", row_group_size=3)
    return folder


def wanted(folder):
    for path in sorted(folder.glob("*.parquet")):
        for i, row in enumerate(pq.read_table(path).to_pylist()):
            image = row["image"] or {"bytes": None, "path": None}
            data = b"picture one" if image["path"] == "pictures/one.jpg" else image["bytes"]
            yield {"id": f"{path.name}/{i}", **row, "image": data}


def same(found, want):
    assert [list(record) for record in found] == [list(record) for record in want]
    for one, other in zip(found, want):
        assert one["z"].dtype == np.float32 and one["z"].tolist() == other["z"]
        assert {**one, "z": 0} == {**other, "z": 0}


def test_random_access_gives_what_reading_whole_tables_gives(folder):
    want = list(wanted(folder))
    source = Source(files=f"{folder}/*.parquet", memory=0)
    order = random.Random(0).sample(range(13), 13)
    same([source[i] for i in order], [want[i] for i in order])
    same(list(Source(files=f"{folder}/*.parquet", limit=8)), want[:8])
    same(list(pickle.loads(pickle.dumps(source))), want)
    with ThreadPoolExecutor(4) as pool:
        same(list(pool.map(lambda i: source[i % 13], range(130))), want * 10)
    assert source.label_names == {"label": ["cat", "dog"]}
    for i in (-1, 13):
        with pytest.raises(IndexError):
            source[i]


def test_order_and_ids_do_not_depend_on_what_is_given_first_or_where_it_lies(folder, remote):
    url = remote.put_folder(folder)
    want = list(wanted(folder))
    for base in (folder, url):
        same(list(Source(files=[f"{base}/t-{i}.parquet" for i in (2, 0, 1)])), want)
    [only] = list(Source(files={"val": f"{folder}/t-1.parquet"}, split="val"))
    same([only], want[7:8])


def test_fields_of_choice(folder):
    fields = {"picture": "image", "author": "meta.author.name", "kind": "label"}
    source = Source(files=f"{folder}/*.parquet", fields=fields, id="url")
    assert source[3] == {
        "id": "https://x.org/0/3",
        "picture": list(wanted(folder))[3]["image"],
        "author": "me 3",
        "kind": 1,
    }
    assert source.label_names == {"kind": ["cat", "dog"]}
    assert source.only("author", "nothing")[3] == {"id": "https://x.org/0/3", "author": "me 3"}
    assert Source(files=f"{folder}/*.parquet").only("id")[12] == {"id": "t-2.parquet/4"}


def test_no_more_columns_are_read_than_are_needed(folder, monkeypatch):
    asked = []
    read = pq.ParquetFile.read_row_group

    def spy(self, group, columns):
        asked.append((group, columns))
        return read(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    source = Source(files=f"{folder}/t-0.parquet", fields={"a": "meta.n", "text": "text"})
    assert [record["a"] for record in source] == list(range(7))
    assert asked == [(group, ["text", "meta"]) for group in range(3)]
    list(source.only("id"))
    assert len(asked) == 3


def test_row_groups_are_kept_as_far_as_memory_goes():
    groups, read = Groups(memory=100), []

    def reads(key, size=40):
        def get():
            read.append(key)
            return {"key": lambda row: key}, size

        return get

    for key in (1, 2, 1, 3, 1, 2):  # 3 pushes out 2, which was used before 1
        assert groups(key, reads(key))["key"](0) == key
    assert read == [1, 2, 3, 2]
    groups(9, reads(9, size=1000))
    groups(9, reads(9))  # however large, the last one stays
    assert read == [1, 2, 3, 2, 9]


def test_a_row_group_is_read_once_for_all_threads():
    groups, read, begun, go = Groups(100), [], threading.Event(), threading.Event()

    def get():
        read.append(1)
        begun.set()
        go.wait(10)
        return {}, 1

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(groups, "key", get)]
        begun.wait(10)
        both.append(pool.submit(groups, "key", get))
        go.set()
        assert [one.result(10) for one in both] == [{}, {}]
    assert read == [1]


def test_a_failed_read_is_tried_again():
    groups = Groups(100)

    def fails():
        raise Fault("unreadable", "no route")

    with pytest.raises(Fault):
        groups("key", fails)
    assert groups("key", lambda: ({"a": id}, 1)) == {"a": id}


def test_paths_are_read_from_the_folder(folder, tmp_path, remote):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.jpg").write_bytes(b"other")
    (folder / "a.jpg").write_bytes(b"here")
    rows = {"file": ["a.jpg", "none.jpg", None, str(tmp_path / "other/a.jpg"), ""]}
    pq.write_table(pa.table(rows), folder / "p.parquet")
    for base in (str(folder), remote.put_folder(folder)):
        options = {"files": f"{base}/p.parquet", "fields": {"image": "file"}, "paths": ["image"]}
        source = Source(**options)
        assert [source[i]["image"] for i in (0, 2, 3, 4)] == [b"here", None, b"other", None]
        with pytest.raises(Fault, match="none.jpg is missing") as error:
            source[1]
        assert error.value.kind == "missing_file"
        assert Source(**options, folder=str(tmp_path / "other"))[0]["image"] == b"other"
        with pytest.raises(Fault, match="more than 3 bytes"):
            Source(**options, largest=3)[0]
    with pytest.raises(InputError, match="paths.imag: unknown key. Did you mean 'image'"):
        Source(**{**options, "paths": ["imag"]})


def test_what_is_wrong_with_a_record_is_a_fault(folder, remote):
    url = remote.put_folder(folder)
    large = Source(files=f"{folder}/*.parquet", largest=299)
    with pytest.raises(Fault, match="image of t-0.parquet/3 has more than 299 bytes"):
        large[3]
    assert large[1]["image"] is None
    sources = [Source(files=f"{base}/*.parquet") for base in (folder, url)]
    (folder / "t-1.parquet").unlink()
    remote.store.pop("/bucket/t-1.parquet")
    for source in sources:
        with pytest.raises(Fault, match="t-1.parquet is missing") as error:
            source[7]
        assert error.value.kind == "vanished_shard"
        assert source[8]["id"] == "t-2.parquet/0"
    ids = pa.table({"id": ["a", None]})
    pq.write_table(ids, folder / "ids.parquet")
    source = Source(files=f"{folder}/ids.parquet")
    assert source[0] == {"id": "a"}
    with pytest.raises(Fault, match="'id', which is the id, is missing in ids.parquet/1"):
        source[1]


def test_a_row_group_that_the_machine_cannot_hold(folder, monkeypatch):
    pq.write_table(pa.table({"x": np.zeros(1_000_000)}), folder / "zeros.parquet")
    monkeypatch.setattr(memory, "of_machine", lambda: 1000)
    with pytest.raises(InputError, match="a row group of .*zeros.parquet grows to "):
        Source(files=f"{folder}/zeros.parquet")


def test_what_is_wrong_with_the_whole_is_said(folder):
    (folder / "bad.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(table(5, 2).drop_columns(["text"]), folder / "u.parquet")
    pq.write_table(table(5, 2).slice(0, 0), folder / "empty.parquet")
    for files, options, message in (
        ("bad.parquet", {}, "cannot read .*bad.parquet"),
        ("none.parquet", {}, "none.parquet is missing"),
        ("[tu]*.parquet", {}, r"u.parquet has no column \['text'\], which .*t-0.parquet has"),
        ("t-*.parquet", {"fields": {"a": "texd"}}, "fields.a: there is no 'texd'. .*'text'"),
        ("t-*.parquet", {"id": "key"}, "id: there is no 'key'"),
        ("empty.parquet", {}, "no record"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Source(files=f"{folder}/{files}", **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        ([[1, 2], None, []], pa.list_(pa.int64()), [np.array([1, 2]), None, np.array([], int)]),
        ([[[1.0], [2.0]]], pa.list_(pa.list_(pa.float32())), [np.array([[1.0], [2.0]], "f4")]),
        ([[[1.0], [2.0, 3.0]]], pa.list_(pa.list_(pa.float32())), [[[1.0], [2.0, 3.0]]]),
        ([["a", None]], pa.large_list(pa.string()), [["a", None]]),
        ([[b"\1\2"]], pa.list_(pa.large_binary()), [[b"\1\2"]]),
        ([True, 1.5][:1], pa.bool_(), [True]),
    ],
)
def test_values_of_arrow(values, kind, want):
    read = arrow.reader(kind)
    for scalar, one in zip(pa.array(values, kind), want):
        found = read(scalar)
        assert type(found) is type(one)
        if isinstance(one, np.ndarray):
            assert found.dtype == one.dtype
        np.testing.assert_equal(found, one)


def test_an_array_keeps_no_row_group_alive():
    column = pa.array([[float(i)] * 4 for i in range(100)], pa.list_(pa.float32()))
    assert arrow.reader(column.type)(column[3]).base is None
    assert parquet._column(pa.chunked_array([column]), str)(3).base is None


def test_files_of_one_name_need_an_id(folder):
    (folder / "b").mkdir()
    pq.write_table(table(9, 1), folder / "b/t-1.parquet")
    both = f"{folder}/**/t-1.parquet"
    with pytest.raises(InputError, match="2 files are called t-1.parquet"):
        Source(files=both)
    found = [record["id"] for record in Source(files=both, id="url").only("id")]
    assert found == ["https://x.org/9/0", "https://x.org/1/0"]
