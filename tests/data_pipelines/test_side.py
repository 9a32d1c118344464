"""Side files of every format say the same of the same ids."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.errors import InputError
from data_pipelines.side import Side

pytestmark = pytest.mark.usefixtures("own_cache")
IDS = ["r3", "r1", "0007", "ü", "r2"]
SCORE, CLUSTER = [0.5, 1.0, -2.0, 3.25, 0.0], [3, 1, 4, 1, 5]
Z = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.fixture
def folder(tmp_path):
    columns = {"id": IDS, "score": SCORE, "cluster": CLUSTER, "text": [f"t{i}" for i in IDS]}
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        lines = [columns, *(row.values() for row in rows)]
        (tmp_path / name).write_text(
            "".join(separator.join(map(str, line)) + "\n" for line in lines)
        )
    with_z = [{**row, "z": z.tolist()} for row, z in zip(rows, Z)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in with_z))
    pq.write_table(pa.table({**columns, "z": list(Z)}), tmp_path / "a.parquet", row_group_size=2)
    np.savez(tmp_path / "a.npz", z=Z, **columns)
    for name, values in {**columns, "z": Z}.items():
        np.save(tmp_path / f"{name}.npy", values)
    return tmp_path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.npz", "*.npy"])
def test_every_format(folder, remote, name):
    for base in (folder, remote.put_folder(folder)):
        side = Side(f"{base}/{name}")
        for found in (side, pickle.loads(pickle.dumps(side))):
            assert len(found) == 5
            assert [found.find(id) for id in (*IDS, "7", "r4")] == [0, 1, 2, 3, 4, None, None]
            for row in range(5):
                assert found.value("score", row) == SCORE[row]
                assert found.value("cluster", row) == CLUSTER[row]
                assert type(found.value("cluster", row)) is int
                assert found.value("text", row) == f"t{IDS[row]}"
                if "z" in found.columns:
                    np.testing.assert_array_equal(found.value("z", row), Z[row])
        assert len(pickle.dumps(side)) < 500
    assert Side(f"{folder}/{name}", columns=["score"]).columns == ["score"]


def test_several_files_one_after_the_other(tmp_path):
    (tmp_path / "a.csv").write_text("key,score\na,1\nb,\n")
    (tmp_path / "b.csv").write_text("key,score\nc,2.5\n")
    side = Side([f"{tmp_path}/b.csv", f"{tmp_path}/a.csv"], "key")
    values = [side.value("score", side.find(id)) for id in "abc"]
    assert values == [1, None, 2.5]
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", id=[2 * i, 2 * i + 1], x=[0.5, i])
    side = Side(f"{tmp_path}/?.npz")
    assert [side.value("x", side.find(id)) for id in "0123"] == [0.5, 0, 0.5, 1]


def test_a_column_of_csv_is_of_numbers_only_if_all_are(tmp_path):
    (tmp_path / "a.csv").write_text("id,a,b\n01,007,1\n02,x,2\n")
    side = Side(f"{tmp_path}/a.csv")
    assert [side.value(c, 0) for c in "ab"] == ["007", 1]
    assert side.find("1") is None and side.find("01") == 0


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "id,a\nx,1\ny,2\nx,3\n", {}, "a.csv has the id 'x' twice"),
        ("a.jsonl", '{"id": 1}\n{"id": "1"}\n', {}, "not alike"),
        ("a.jsonl", '{"id": 1}\n{"id": 1}\n', {}, "the id '1' twice"),
        ("a.jsonl", '{"id": "a"}\n{"b": 1}\n', {}, "the id of row 1 is None"),
        ("a.jsonl", '{"id": 0.5}\n', {}, "the id of row 0 is 0.5"),
        ("a.jsonl", '{"id": "a"}\n{\n', {}, "a.jsonl, row 2"),
        ("a.csv", "id,a\nx\n", {}, "a.csv, row 1: there are 1 cells for 2 columns"),
        ("a.csv", "uid,a\nx,1\n", {}, "no column 'id'. Did you mean 'uid'"),
        ("a.csv", "id,score\nx,1\n", {"columns": ["scores"]}, "no column 'scores'. .*'score'"),
        ("a.csv", "id,a\n", {}, "a.csv has no rows"),
        ("a.txt", "x", {}, "a.txt is no table"),
        ("a.parquet", "x", {}, "cannot read .*a.parquet"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, text, options, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        Side(f"{tmp_path}/{name}", **options)
    assert "\n" not in str(error.value)
