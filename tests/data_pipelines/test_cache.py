import hashlib
import json

import pytest

from data_pipelines import cache
from data_pipelines.errors import InputError


def build(folder):
    (folder / "a.bin").write_bytes(b"picture" * 100)
    (folder / "b.txt").write_text("names")
    return {"counts": {"a": 1}}


def test_root(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MMCL_CACHE", raising=False)
    assert cache.root() == tmp_path / "home/.cache/mmcl"
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "env"))
    assert cache.root() == tmp_path / "env"
    assert cache.root(tmp_path / "given") == tmp_path / "given"
    monkeypatch.chdir(tmp_path)
    assert cache.root("given") == tmp_path / "given"


def test_built_once_with_a_true_manifest(tmp_path):
    folder = cache.prepared("data-v1", build, tmp_path)
    assert folder == tmp_path / "data-v1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {"a": 1}
    assert manifest["files"] == {
        name: {"bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
        for name, size, content in [("a.bin", 700, b"picture" * 100), ("b.txt", 5, b"names")]
    }
    assert cache.prepared("data-v1", lambda _: pytest.fail("built twice"), tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["data-v1"]


def flip(path):
    path.write_bytes(b"q" + path.read_bytes()[1:])


def edit_manifest(**changes):
    def edit(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("a.bin", flip),
        ("a.bin", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("a.bin", lambda path: path.unlink()),
        ("b.txt", lambda path: path.write_text("")),
        ("manifest.json", lambda path: path.unlink()),
        ("manifest.json", lambda path: path.write_text(path.read_text()[:-20])),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", edit_manifest(files={"a.bin": {}})),
        ("manifest.json", edit_manifest(files=[])),
        ("manifest.json", edit_manifest(format=0)),
    ],
)
def test_damage_is_named(tmp_path, file, damage):
    folder = cache.prepared("data-v1", build, tmp_path)
    damage(folder / file)
    with pytest.raises(InputError) as error:
        cache.prepared("data-v1", build, tmp_path)
    message = str(error.value)
    assert str(folder / file) in message
    assert f"delete {folder} and run the command again" in message
    assert "\n" not in message


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failed_build_leaves_nothing(tmp_path, failure):
    def fails(folder):
        build(folder)
        assert not (tmp_path / "data-v1").exists()  # half a folder never has the name
        raise failure

    with pytest.raises(failure):
        cache.prepared("data-v1", fails, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_builders(tmp_path):
    def slow(folder):
        other = cache.prepared("data-v1", build, tmp_path)  # another process overtakes this one
        assert other.exists()
        (folder / "a.bin").write_bytes(b"late")
        return {}

    folder = cache.prepared("data-v1", slow, tmp_path)
    assert (folder / "a.bin").read_bytes() == b"picture" * 100
    assert [path.name for path in tmp_path.iterdir()] == ["data-v1"]


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*data-v1.*set MMCL_CACHE") as error:
        cache.prepared("data-v1", build, tmp_path / "file")
    assert "\n" not in str(error.value)


def test_existing_is_never_built(tmp_path):
    with pytest.raises(InputError, match="data-v1 is not there: run this") as error:
        cache.existing("data-v1", tmp_path, "run this")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    folder = cache.prepared("data-v1", build, tmp_path)
    assert cache.existing("data-v1", tmp_path, "run this") == folder
    flip(folder / "a.bin")
    with pytest.raises(InputError, match="a.bin is damaged"):
        cache.existing("data-v1", tmp_path, "run this")
