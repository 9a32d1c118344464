"""Rows kept on disk: the same as what was built, made anew when the file is another."""

import pickle

import pytest

from data_pipelines.errors import InputError
from data_pipelines.index import indexes

pytestmark = pytest.mark.usefixtures("own_cache")
built = []


def lines(file, path, about):
    built.append(path)
    about["letters"] = "ab"
    at = 0
    for line in file:
        yield at, [at, line.decode()]
        at += len(line)
    if at == 3:
        raise OSError("disk on fire")


@pytest.fixture
def path(tmp_path):
    built.clear()
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(2500)))
    return str(tmp_path / "a.txt")


def test_rows_are_what_was_built(path, tmp_path):
    (tmp_path / "empty.txt").touch()
    index, empty = indexes([path, str(tmp_path / "empty.txt")], "lines", lines)
    assert (index.path, index.rows, index.about) == (path, 2500, {"letters": "ab"})
    data = (tmp_path / "a.txt").read_bytes()
    for row in (0, 7, 2499):
        start, line = index[row]
        assert line == f"line {row}\n" and data[start:].startswith(line.encode())
    assert empty.rows == 0
    assert pickle.loads(pickle.dumps(index))[3] == index[3]
    assert len(pickle.dumps(index)) < 1000


def test_built_once_until_the_file_or_the_kind_changes(path, tmp_path):
    indexes([path], "lines", lines)
    indexes([path], "lines", lines)
    assert len(built) == 1
    indexes([path], "lines-2", lines)
    assert len(built) == 2
    (tmp_path / "a.txt").write_text("x" * len((tmp_path / "a.txt").read_text()))  # only its time
    [index] = indexes([path], "lines", lines)
    assert len(built) == 3 and index.rows == 1


def test_a_damaged_index_is_made_anew(path, tmp_path):
    [index] = indexes([path], "lines", lines)
    want = [index[row] for row in (0, 2499)]
    kept = next((tmp_path / "cache/indexes").iterdir())
    whole = kept.read_bytes()
    nested = b"[" * 10**5 + (0).to_bytes(8, "little")
    for damaged in (b"", whole[:-1], whole[:500], whole + b"x", whole[1:], b"\0" * 99, nested):
        kept.write_bytes(damaged)
        [again] = indexes([path], "lines", lines)
        assert [again[row] for row in (0, 2499)] == want
        assert kept.read_bytes() == whole
    assert len(built) == 8


def test_an_index_that_goes_while_it_is_used_is_named(path, tmp_path):
    [index] = indexes([path], "lines", lines)
    next((tmp_path / "cache/indexes").iterdir()).unlink()
    with pytest.raises(InputError, match="index of .*a.txt, is gone or damaged: run the command"):
        index[3]


def test_a_failure_leaves_no_index(path, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(InputError, match="cannot index .*a.txt .disk on fire.") as error:
        indexes([path], "lines", lines)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache/indexes").iterdir()) == []
    monkeypatch.setenv("MMCL_CACHE", path)
    with pytest.raises(InputError, match="set MMCL_CACHE"):
        indexes([path], "lines", lines)
