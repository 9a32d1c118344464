"""Joined against a dictionary."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.open_source import open_source
from data_pipelines.sources.joined import Source

pytestmark = pytest.mark.usefixtures("own_cache")


def inner(n: int) -> dict:
    records = {"id": [f"r{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)]}
    return {"name": "arrays", "arrays": records}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.sets(st.integers(0, 40), min_size=1), st.randoms())
def test_joined_is_a_look_up_by_id(tmp_path, n, beside, chance):
    listed = list(beside)
    chance.shuffle(listed)
    np.savez(tmp_path / "side.npz", id=[f"r{i}" for i in listed], z=np.eye(41)[listed], c=listed)
    want = []
    for i in range(n):
        found = {"z": np.eye(41)[i].tolist(), "c": i} if i in beside else {"z": None, "c": None}
        want.append({"id": f"r{i}", "text": f"text {i}", **found})
    options = {"source": inner(n), "side": f"{tmp_path}/side.npz"}

    def plain(source):
        return [r | {"z": None if r["z"] is None else r["z"].tolist()} for r in source]

    both = [record for record in want if record["c"] is not None]
    if not both:
        for missing in ("drop", "error"):
            with pytest.raises(InputError, match="no record is in the side file; is 'r"):
                Source(**options, missing=missing)
        return
    source = Source(**options)
    assert plain(source) == want and plain(pickle.loads(pickle.dumps(source))) == want
    dropped = Source(**options, missing="drop")
    assert plain(dropped) == both == plain(pickle.loads(pickle.dumps(dropped)))
    with pytest.raises(IndexError):
        dropped[len(both)]
    if len(both) < n:
        with pytest.raises(InputError, match=f"{n - len(both)} records are not in the side file"):
            Source(**options, missing="error")
    else:
        assert plain(Source(**options, missing="error")) == want


def test_entries_of_choice_may_replace_others(tmp_path):
    (tmp_path / "s.csv").write_text("key,caption,cluster\nr0,better,4\n")
    section = {"name": "joined", "source": inner(2), "side": f"{tmp_path}/s.csv", "key": "key"}
    source = open_source({**section, "fields": {"text": "caption", "group": "cluster"}})
    assert list(source) == [
        {"id": "r0", "text": "better", "group": 4},
        {"id": "r1", "text": "text 1", "group": None},
    ]
    assert list(source.only("group", "id")) == [
        {"id": "r0", "group": 4},
        {"id": "r1", "group": None},
    ]
    assert list(source.only("text"))[1] == {"id": "r1", "text": "text 1"}


def test_a_side_file_of_strangers_is_refused(tmp_path):
    rows = [{"id": f"00000.tar/r{i}", "score": 1} for i in range(50)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="is 'r99' an id as its 'id' has them"):
        Source(source=inner(100), side=f"{tmp_path}/s.jsonl")


def test_a_split_goes_to_the_source(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "b"}\n')
    (tmp_path / "s.csv").write_text("id,n\na,1\nb,2\n")
    files = {"train": f"{tmp_path}/a.jsonl", "val": f"{tmp_path}/b.jsonl"}
    section = {"name": "table", "files": files, "split": "train", "label_names": {"k": ["x"]}}
    options = {"source": section, "side": f"{tmp_path}/s.csv", "label_names": {"n": ["y"]}}
    assert list(Source(**options)) == [{"id": "a", "n": 1}]
    source = open_source({"name": "joined", **options, "split": "val"})
    assert list(source) == [{"id": "b", "n": 2}]
    assert source.label_names == {"k": ["x"], "n": ["y"]}
    with pytest.raises(InputError, match="no split 'tst'"):
        Source(**options, split="tst")
    with pytest.raises(InputError, match="source.source.fils: unknown key"):
        Source(source={"name": "table", "fils": "x"}, side="x")
    with pytest.raises(InputError, match="cannot give a new 'id'"):
        Source(**options, fields={"id": "n"})


def test_a_record_that_cannot_be_used_stays_one(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a"}\n{\n{"id": "b"}\n')
    (tmp_path / "s.csv").write_text("id,n\na,1\n")
    section = {"name": "table", "files": f"{tmp_path}/a.jsonl"}
    source = Source(source=section, side=f"{tmp_path}/s.csv", missing="drop")
    assert len(source) == 2 and source[0] == {"id": "a", "n": 1}
    with pytest.raises(Fault, match="a.jsonl/1"):
        source[1]


OWN = """
class Source:
    label_names = {}
    folder = "here"

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"id": f"r{index}", "text": "all that there is"}
"""


def test_a_users_own_source_cannot_tell_entries_apart(tmp_path, monkeypatch):
    (tmp_path / "own_rows.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "s.csv").write_text("id,n\nr2,1\n")
    source = Source(source={"name": "own_rows"}, side=f"{tmp_path}/s.csv", missing="drop")
    assert list(source) == [{"id": "r2", "text": "all that there is", "n": 1}]
    assert source.folder == "here"
