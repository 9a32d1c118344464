import pickle

import numpy as np
import pytest

from data_pipelines import memory
from data_pipelines.errors import InputError
from data_pipelines.sources.arrays import Source

pytestmark = pytest.mark.usefixtures("own_cache")
COLUMNS = {
    "z": np.arange(12, dtype=np.float32).reshape(6, 2),
    "text": np.array(list("abcdeü")),
    "label": np.arange(6, dtype=np.int16),
    "score": np.linspace(0, 1, 6),
}


def same(source, columns, ids):
    assert len(source) == len(ids)
    for i, record in enumerate(source):
        assert record.keys() == {"id", *columns} and record["id"] == ids[i]
        for name, values in columns.items():
            np.testing.assert_array_equal(record[name], values[i])
    assert type(record["text"]) is str and type(record["label"]) is int
    assert type(record["score"]) is float and record["z"].dtype == np.float32


def test_arrays_and_lists_in_memory():
    rows = [str(i) for i in range(6)]
    same(Source(arrays=COLUMNS), COLUMNS, rows)
    lists = {name: list(values) for name, values in COLUMNS.items()}
    assert Source(arrays={"text": lists["text"]})[5] == {"id": "5", "text": "ü"}
    source = Source(arrays={**COLUMNS, "id": np.arange(6) + 10}, fields={"text": "text"}, limit=3)
    assert list(pickle.loads(pickle.dumps(source))) == [
        {"id": f"{10 + i}", "text": letter} for i, letter in enumerate("abc")
    ]
    with pytest.raises(IndexError):
        source[3]


def test_npz_files_are_stacked(tmp_path, remote):
    for part in range(3):
        np.savez(tmp_path / f"p{part}.npz", **{n: v[2 * part :][:2] for n, v in COLUMNS.items()})
    ids = [f"p{i // 2}.npz/{i % 2}" for i in range(6)]
    for base in (tmp_path, remote.put_folder(tmp_path)):
        source = Source(files=[f"{base}/p{i}.npz" for i in (2, 0, 1)])
        same(source, COLUMNS, ids)
        same(pickle.loads(pickle.dumps(source)), COLUMNS, ids)
        assert source.only("label")[3] == {"id": "p1.npz/1", "label": 3}


def test_npy_files_are_columns_and_stay_on_disk(tmp_path, remote):
    for name, values in COLUMNS.items():
        np.save(tmp_path / f"{name}.npy", values)
    for base in (tmp_path, remote.put_folder(tmp_path)):
        source = Source(files=f"{base}/*.npy")
        same(source, COLUMNS, [str(i) for i in range(6)])
        assert type(source._parts[0]["z"]) is np.memmap
        packed = pickle.dumps(source)
        assert len(packed) < 1500
        same(pickle.loads(packed), COLUMNS, [str(i) for i in range(6)])
    assert source[0]["z"].base is None  # nothing holds on to the file


def test_a_split_of_files(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    source = Source(files={"train": f"{tmp_path}/a.npz"}, split="train")
    assert [record["x"] for record in source] == [0, 1, 2]


def test_what_the_machine_cannot_hold_is_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)))
    source = {"files": f"{tmp_path}/a.npz"}
    monkeypatch.setattr(memory, "of_machine", lambda: 8_001_000)
    assert len(Source(**source)) == 1000
    monkeypatch.setattr(memory, "of_machine", lambda: 7_000_000)
    with pytest.raises(InputError, match="a.npz grows to 0.0 GB when it is unpacked; this machine"):
        Source(**source)


def test_what_is_wrong_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    np.savez(tmp_path / "b.npz", y=np.arange(3))
    np.save(tmp_path / "c.npy", np.array([{}]))
    np.save(tmp_path / "d.npy", np.float32(3))
    (tmp_path / "e.npz").write_bytes(b"noise")
    (tmp_path / "f.npy").write_bytes(b"")
    np.savez(tmp_path / "g.npz", x=np.array([{}]))
    for options, message in (
        ({}, "either `arrays` or `files`"),
        ({"arrays": {"x": [1]}, "files": "x"}, "either `arrays` or `files`"),
        ({"arrays": {"x": [1], "y": [1, 2]}}, "of one length, but are {'x': 1, 'y': 2}"),
        ({"arrays": {}}, "of one length, but are {}"),
        ({"arrays": {"x": 3}}, "of one length"),
        ({"arrays": {"x": []}}, "no record"),
        ({"arrays": {"x": [1]}, "split": "train"}, "no split 'train'"),
        ({"arrays": {"xy": [1]}, "fields": {"a": "xz"}}, "no 'xz'. Did you mean 'xy'"),
        ({"files": f"{tmp_path}/[ab].npz"}, r"b.npz has \['y'\], but .*a.npz has \['x'\]"),
        ({"files": [f"{tmp_path}/a.npz", f"{tmp_path}/c.npy"]}, "all end in .npz, or all in"),
        ({"files": f"{tmp_path}/x.txt"}, "all end in .npz"),
        ({"files": f"{tmp_path}/c.npy"}, "c.npy cannot be used: .* Python objects"),
        ({"files": f"{tmp_path}/d.npy"}, "of one length"),
        ({"files": f"{tmp_path}/e.npz"}, "e.npz cannot be used"),
        ({"files": f"{tmp_path}/f.npy"}, "f.npy cannot be used"),
        ({"files": f"{tmp_path}/g.npz"}, "g.npz cannot be used: Object arrays"),
        ({"files": f"{tmp_path}/n.npz"}, "n.npz is missing"),
        ({"files": f"{tmp_path}/n.npy"}, "n.npy is missing"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Source(**options)
        assert "\n" not in str(error.value)
