"""Workdirs at URLs: what is uploaded when, and that what is half there is never taken for whole."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data_pipelines.errors import InputError
from mmcl import checksums, remote, workdir
from mmcl.checkpoint import put_aside
from mmcl.remote import Mirror, mirrored

URL = "far://bucket/runs/one"


class Far(MemoryFileSystem):
    """`far://`: one bucket; what it is asked to do is noted, and `refusing` is raised by it."""

    protocol = "far"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    done: list[tuple[str, str]] = []
    refusing: Exception | None = None
    slow = threading.Event()  # uploads of arrays wait for it

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("far://")))

    def note(self, what: str, path: str) -> None:
        if Far.refusing is not None:
            raise Far.refusing
        if not path.startswith("/bucket/"):
            raise FileNotFoundError("The specified bucket does not exist")
        self.done.append((what, path.removeprefix("/bucket/runs/one/")))

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        path = self._strip_protocol(rpath)
        if "/state/" in path:
            assert Far.slow.wait(20)
        self.note("put", path)
        super().put_file(lpath, rpath, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self.note("put", self._strip_protocol(path))
        super().pipe_file(path, value, **options)

    def rm_file(self, path: str) -> None:
        self.note("remove", self._strip_protocol(path))
        super().rm_file(path)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self.note("get", self._strip_protocol(rpath))
        super().get_file(rpath, lpath, **options)


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Far]]:
    fsspec.register_implementation("far", Far, clobber=True)
    monkeypatch.setattr(remote, "_LOOK_S", 0.01)
    monkeypatch.setattr(remote, "EVERY_S", 0.05)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    Far.store.clear()
    Far.done.clear()
    Far.refusing = None
    Far.slow.set()
    yield Far
    Far.refusing = None
    Far.slow.set()


def names() -> set[str]:
    return {path.removeprefix("/bucket/runs/one/") for path in Far.store}


def put(files: dict[str, str]) -> None:
    for name, text in files.items():
        MemoryFileSystem.pipe_file(Far(), f"/bucket/runs/one/{name}", text.encode())
    Far.done.clear()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkpoint(step: int, *processes: int, of: int = 1) -> dict[str, str]:
    at = f"checkpoints/{step}"
    files = {f"{at}/state/d/{step}": "arrays", f"{at}/data/metadata": "{}"}
    sums = {
        name.removeprefix(f"{at}/"): [len(text), hashlib.sha256(text.encode()).hexdigest()]
        for name, text in files.items()
    }
    files[f"{at}/checksums.json"] = json.dumps(sums)
    return files | {f"{at}/.arrived-{i}-of-{of}": "" for i in processes}


def soon(what: Any) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_path_is_a_path(tmp_path: Path) -> None:
    with mirrored(tmp_path / "run", writes=(0, 1)) as mirror:
        assert mirror.folder == tmp_path / "run" and not mirror.folder.exists()
        mirror.push()
        assert mirror.shown(mirror.folder / "x") == f"{tmp_path}/run/x"
    assert not list(tmp_path.iterdir())


def test_everything_comes_back(tmp_path: Path) -> None:
    written = {"config.json": "{}", "metrics.jsonl": "1\n2\n", "deep/report.html": "<p>"}
    with mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, written | {"x.tmp": "", "engine.json.part": ""})
        write(mirror.folder, checkpoint(3))
        write(mirror.folder, {"checkpoints/4.orbax-checkpoint-tmp/state/d/1": "half"})
    assert names() == {*written, *checkpoint(3, 0)}
    assert not list(tmp_path.iterdir())
    with mirrored(URL) as mirror:
        found = {
            path.relative_to(mirror.folder).as_posix(): path.read_text()
            for path in mirror.folder.rglob("*")
            if path.is_file()
        }
    assert found == written | checkpoint(3)


def test_the_config_goes_first_then_rows_then_arrays_then_the_mark() -> None:
    with mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, {"a.json": "", "metrics.jsonl": "1\n", "config.json": "{}"})
        write(mirror.folder, checkpoint(3))
        Far.done.clear()
        mirror.push()
        order = [name for what, name in Far.done]
    assert order[0] == "config.json" and order[-1] == "checkpoints/3/.arrived-0-of-1"
    assert max(order.index("metrics.jsonl"), order.index("a.json")) < min(
        order.index(name) for name in checkpoint(3)
    )


def test_rows_and_checkpoints_are_uploaded_meanwhile_and_only_what_changed() -> None:
    with mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, {"config.json": "{}", "metrics.jsonl": "1\n"})
        soon(lambda: "metrics.jsonl" in names())
        write(mirror.folder, {"metrics.jsonl": "1\n2\n"} | checkpoint(1))
        soon(lambda: "checkpoints/1/.arrived-0-of-1" in names())
        assert Far().cat_file("/bucket/runs/one/metrics.jsonl") == b"1\n2\n"
    assert Far.done.count(("put", "config.json")) == 1
    assert Far.done.count(("put", "checkpoints/1/state/d/1")) == 1


def test_a_checkpoint_that_is_removed_here_meanwhile_still_arrives_and_then_goes() -> None:
    """Uploads slower than saves: none is lost on the way, and the newest is never the only one."""
    with mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, {"config.json": "{}"} | checkpoint(1))
        soon(lambda: "config.json" in names())
        Far.slow.clear()
        write(mirror.folder, checkpoint(2))
        soon(lambda: (mirror._leaving / "2").exists())
        shutil.rmtree(mirror.folder / "checkpoints/1")
        shutil.rmtree(mirror.folder / "checkpoints/2")
        write(mirror.folder, checkpoint(3))
        Far.slow.set()
        soon(lambda: ("remove", "checkpoints/2/.arrived-0-of-1") in Far.done)
    assert names() == {"config.json", *checkpoint(3, 0)}
    marks = [entry for entry in Far.done if ".arrived" in entry[1]]
    assert marks.index(("put", "checkpoints/3/.arrived-0-of-1")) < marks.index(
        ("remove", "checkpoints/2/.arrived-0-of-1")
    )


def test_what_a_kill_left_half_there_is_no_checkpoint_and_is_removed() -> None:
    put({"config.json": "{}"} | checkpoint(1, 0) | checkpoint(2) | checkpoint(3, 0, of=2))
    with mirrored(URL) as mirror:  # who only reads leaves it alone
        assert workdir.saved_steps(mirror.folder) == [1]
    assert "checkpoints/2/state/d/2" in names()
    with mirrored(URL, writes=(1, 2)):
        assert "checkpoints/2/state/d/2" in names()
    with mirrored(URL, writes=(0, 2)) as mirror:
        assert names() == {"config.json", *checkpoint(1, 0)}
        assert workdir.saved_steps(mirror.folder) == [1]


def test_a_checkpoint_of_several_processes_is_whole_when_all_have_arrived() -> None:
    with mirrored(URL, writes=(0, 2)) as first:
        write(first.folder, {"config.json": "{}"} | checkpoint(1))
        put(checkpoint(1, 1, of=2))
        first.push()
        shutil.rmtree(first.folder / "checkpoints/1")
        write(first.folder, checkpoint(2))
        first.push()
        assert workdir.saved_steps(_fetched()) == [1]  # stays until the next one is whole
        with mirrored(URL, writes=(1, 2)) as second:
            write(second.folder, {"checkpoints/2/state/d/other": "arrays of process 1"})
        first.push()
        here = _fetched()
        assert workdir.saved_steps(here) == [2]
        assert (here / "checkpoints/2/state/d/other").is_file()


def _fetched() -> Path:
    mirror = Mirror(URL)
    mirror.pull()
    return mirror.folder


@pytest.mark.parametrize(
    ("arrays", "steps"), [("newest", [5]), (2, [2]), ("all", [2, 5]), (7, []), ("none", [])]
)
def test_only_the_arrays_that_are_asked_for_come(arrays: Any, steps: list[int]) -> None:
    put({"config.json": "{}"} | checkpoint(2, 0) | checkpoint(5, 0))
    with mirrored(URL, arrays) as mirror:
        assert workdir.saved_steps(mirror.folder) == [2, 5]
        found = sorted(int(path.name) for path in mirror.folder.glob("checkpoints/*/state/d/*"))
    assert found == steps


def test_a_damaged_checkpoint_brings_the_one_before_and_is_overwritten() -> None:
    put({"config.json": "{}"} | checkpoint(2, 0) | checkpoint(5, 0) | checkpoint(7, 0))
    for step in (5, 7):
        put({f"checkpoints/{step}/state/d/{step}": "arrrys"})
    put({"checkpoints/7/state/d/more": "that nobody needs"})
    with mirrored(URL, writes=(0, 1)) as mirror:
        at = mirror.folder / "checkpoints"
        assert [checksums.damage(at / str(step)) is None for step in (2, 5, 7)] == [1, 0, 0]
        put_aside(mirror.folder, [5, 7])
        mirror.push()
        assert not [name for name in names() if "damaged" in name]
        write(mirror.folder, checkpoint(7))
        mirror.push()
    assert names() == {"config.json", *checkpoint(2, 0), *checkpoint(7, 0)}
    assert checksums.damage(_fetched() / "checkpoints/7") is None


def test_earlier_checkpoints_are_kept_there_without_coming_here() -> None:
    put({"config.json": "{}"} | checkpoint(2, 0) | checkpoint(5, 0))
    with mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, checkpoint(9))
        shutil.rmtree(mirror.folder / "checkpoints/5")
    assert names() == {"config.json", *checkpoint(2, 0), *checkpoint(9, 0)}


@pytest.mark.parametrize(
    ("url", "refusing", "said"),
    [
        ("faar://bucket/run", None, "there is no file system 'faar'. Did you mean 'far'?"),
        ("far://other/run", None, "cannot be written (FileNotFoundError: The specified bucket"),
        (URL, PermissionError("403: not yours"), "cannot be written (PermissionError: 403"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(
    tmp_path: Path, url: str, refusing: Exception | None, said: str
) -> None:
    Far.refusing = refusing
    with pytest.raises(InputError) as error, mirrored(url, writes=(0, 1)):
        raise AssertionError("never")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert url in str(error.value) and not Far.store and not list(tmp_path.iterdir())


def test_other_files_are_not_fetched_as_if_they_were_a_run() -> None:
    put({"thesis.tex": "x"})
    with pytest.raises(InputError, match=f"{URL} holds files but no run"), mirrored(URL):
        raise AssertionError("never")
    assert Far.done == []


def test_errors_of_others_name_the_url(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{URL}/config.json is damaged$"), mirrored(URL) as here:
        raise InputError(f"{here.folder}/config.json is damaged")
    assert not list(tmp_path.iterdir())


def test_an_upload_that_fails_is_said_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    with mirrored(URL, writes=(0, 1)) as mirror:
        Far.refusing = OSError("no route to host")
        write(mirror.folder, {"config.json": "{}"} | checkpoint(1))
        time.sleep(0.3)
        Far.refusing = None
    assert names() == {"config.json", *checkpoint(1, 0)}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mmcl: {URL} cannot be written (OSError: no route to host)")


def test_what_could_not_be_uploaded_at_the_end_is_kept_here() -> None:
    with pytest.raises(InputError) as error, mirrored(URL, writes=(0, 1)) as mirror:
        write(mirror.folder, {"config.json": json.dumps({"a": 1})})
        Far.refusing = OSError("no route to host")
    assert str(error.value).endswith(f"What is not there yet lies in {mirror.folder}.")
    assert json.loads((mirror.folder / "config.json").read_text()) == {"a": 1}
