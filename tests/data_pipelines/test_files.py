"""Paths against a shell's braces and globs; ranges against slices; a file system that fails."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import files
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault

PIECES = st.sampled_from(
    ["a", "7", "/", ".", "{1..3}", "{08..11}", "{5..1..2}", "{-2..02}", "{x,y}", "{x,{a,b}{1..2}}"]
    + ["{", "}", "{x}", "{1..x}", "{}", ","]
)


@settings(max_examples=15)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=4).map("".join), min_size=1, max_size=8))
def test_braces_are_those_of_a_shell(patterns):
    patterns = [p for p in patterns if p.count("{") == p.count("}") and "{}" not in p]
    script = "".join(f"printf '%s|' {pattern}; echo\n" for pattern in patterns)
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    for pattern, line in zip(patterns, said.stdout.splitlines()):
        assert set(files.braces(pattern)) == set(line.removesuffix("|").split("|")), pattern


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("a-2.tar", "a-0.tar", "a-1.tar", "deep/b.tar", "{odd}.tar", "[odd].tar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def test_every_spelling_means_the_same_sorted_files(folder, remote, monkeypatch):
    url = remote.put_folder(folder)
    for base in (str(folder), f"file://{folder}", url):
        want = [f"a-{i}.tar" for i in range(3)]
        for spelling in (
            f"{base}/a-*.tar",
            f"{base}/a-{{0..2}}.tar",
            [f"{base}/a-2.tar", f"{base}/a-[01].tar", f"{base}/a-1.tar"],
        ):
            found = files.listed(spelling)
            assert [files.name_of(path) for path in found] == want
            assert len({files.folder_of(path) for path in found}) == 1
        assert [files.name_of(path) for path in files.listed(f"{base}/**/b.tar")] == ["b.tar"]
    monkeypatch.chdir(folder)
    assert files.listed("a-1.tar") == [str(folder / "a-1.tar")]
    monkeypatch.setenv("HOME", str(folder))
    assert files.listed("~/a-1.tar") == [str(folder / "a-1.tar")]
    for name in ("{odd}.tar", "[odd].tar"):  # a file that is there is meant as it is called
        assert files.listed(f"{folder}/{name}") == [str(folder / name)]


def test_a_split_is_picked(folder):
    parted = {"train": f"{folder}/a-[01].tar", "val": [f"{folder}/a-2.tar"]}
    assert files.listed(parted, "val") == [str(folder / "a-2.tar")]
    assert len(files.listed(parted, "train")) == 2


@pytest.mark.parametrize(
    ("given", "split", "message"),
    [
        ("x/{1..3}-*.tar", None, r"no file matches .*/x/1-\*\.tar"),
        ("counted://bucket/none-*", None, "no file matches counted://bucket/none"),
        ([], None, "names no file"),
        ({"train": "x", "val": "y"}, "trian", "no split 'trian'. Did you mean 'train'"),
        ({"train": "x", "val": "y"}, None, "no split 'None'"),
        ("x", "train", "no split 'train': `files` is not parted"),
        ("s3://bucket/x.tar", None, r"s3fs.*pip install 'mmcl\[remote\]'"),
        ("gs://bucket/*.tar", None, r"gcsfs.*pip install 'mmcl\[remote\]'"),
        ("countd://x", None, r"no file system 'countd'. Did you mean 'counted'.*mmcl\[remote\]"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(remote, given, split, message):
    if isinstance(given, str) and given[:2] in ("s3", "gs"):
        try:
            __import__({"s3": "s3fs", "gs": "gcsfs"}[given[:2]])
            pytest.skip("installed here")
        except ImportError:
            pass
    with pytest.raises(InputError, match=message) as error:
        files.listed(given, split)
    assert "\n" not in str(error.value)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 9_000)), max_size=5))
def test_ranges_are_slices(tmp_path_factory, ranges):
    data = bytes(i * i % 251 for i in range(100_000))
    path = tmp_path_factory.getbasetemp() / "ranges"
    path.write_bytes(data)
    want = [data[start : start + size] for start, size in ranges]
    assert files.read_ranges(str(path), ranges) == want


def test_neighbours_come_by_one_request(folder, remote):
    (folder / "big").write_bytes(bytes(range(256)) * 1000)
    path = remote.put_folder(folder) + "/big"
    near, far = (5000, 100), (100_000, 50)
    want = [(folder / "big").read_bytes()[a : a + n] for a, n in (near, (10, 20), far)]
    assert files.read_ranges(path, [near, (10, 20), far]) == want
    assert remote.asked == [5090, 50]


def test_what_goes_wrong_with_a_shard_is_a_fault(folder, remote):
    url = remote.put_folder(folder)
    for path in (str(folder / "a-0.tar"), f"{url}/a-0.tar"):
        with pytest.raises(Fault, match="ends before byte 8000") as error:
            files.read_ranges(path, [(0, 10), (6500, 1500)])
        assert error.value.kind == "truncated_shard"
    remote.broken = ConnectionError("no route\nto host")
    with pytest.raises(Fault, match="a-0.tar: ConnectionError: no route to host") as error:
        files.read_ranges(f"{url}/a-0.tar", [(0, 10)])
    assert error.value.kind == "unreadable"
    remote.broken = None
    remote.store.clear()
    (folder / "a-0.tar").unlink()
    for path in (str(folder / "a-0.tar"), f"{url}/a-0.tar"):
        with pytest.raises(Fault, match="missing") as error:
            files.read_ranges(path, [(0, 10)])
        assert error.value.kind == "vanished_shard"
        with pytest.raises(Fault, match="missing") as error:
            files.read_whole(path)
        assert error.value.kind == "missing_file"


def test_a_file_of_a_row_is_read_up_to_the_largest(folder, remote):
    url = remote.put_folder(folder)
    for base in (str(folder), url):
        assert files.read_whole(f"{base}/a-0.tar", 7000) == b"a-0.tar" * 1000
        with pytest.raises(Fault, match="more than 6,999 bytes") as error:
            files.read_whole(f"{base}/a-0.tar", 6999)
        assert error.value.kind == "too_large"


def test_facts_change_with_the_file(folder, remote):
    url = remote.put_folder(folder)
    before = files.every_facts([str(folder / "a-0.tar"), f"{url}/a-0.tar"])
    assert [of.size for of in before] == [7000, 7000]
    (folder / "a-0.tar").write_bytes(b"b" * 7000)
    remote.put_folder(folder)
    after = files.every_facts([str(folder / "a-0.tar"), f"{url}/a-0.tar"])
    assert all(a.stamp != b.stamp for a, b in zip(before, after))
    for path, message in ((f"{folder}/none", "none is missing"), (str(folder), "is a folder")):
        with pytest.raises(InputError, match=message):
            files.facts(path)


def test_beside():
    assert files.beside("/data", "a/b.jpg") == "/data/a/b.jpg"
    assert files.beside("gs://x/data/", "b.jpg") == "gs://x/data/b.jpg"
    for whole in ("/other/b.jpg", "https://x.org/b.jpg"):
        assert files.beside("/data", whole) == whole


def test_a_remote_file_is_copied_once_and_again_when_it_has_changed(folder, remote, tmp_path):
    url = remote.put_folder(folder)
    given = [f"{url}/a-0.tar", str(folder / "a-1.tar"), f"{url}/deep/b.tar"]
    copies = files.copied(given, tmp_path / "cache")
    assert copies[1] == given[1]
    for copy, name in zip(copies, ("a-0.tar", "a-1.tar", "deep/b.tar")):
        assert Path(copy).read_bytes() == (folder / name).read_bytes()
    Path(copies[0]).write_bytes(b"!" * 7000)  # of the same size: seen as the copy
    assert files.copied(given, tmp_path / "cache") == copies
    assert Path(copies[0]).read_bytes() == b"!" * 7000
    for new in (b"?" * 7000, b"new"):
        (folder / "a-0.tar").write_bytes(new)
        remote.put_folder(folder)
        assert files.copied(given, tmp_path / "cache") == copies
        assert Path(copies[0]).read_bytes() == new
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept == [".a-0.tar.stamp", ".b.tar.stamp", "a-0.tar", "b.tar"]
