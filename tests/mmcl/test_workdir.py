"""Whose a run's folder is, and whether it can be written."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import workdir

CONFIG: dict[str, Any] = {"steps": 3, "towers": {"image": {"name": "vit", "width": 8}}}


def said(function: Any, *args: Any) -> str:
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_folder_is_checked_without_being_made(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    workdir.check(folder, "exp.py", CONFIG)
    assert not (tmp_path / "deep").exists()
    workdir.create(folder, "exp.py", CONFIG)
    assert configs.read(folder)["config"] == CONFIG
    workdir.check(folder, "exp.py", CONFIG)  # its own run: go on


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    workdir.check(tmp_path, "exp.py", CONFIG)


def test_going_on_remembers_where_the_experiment_is_now(tmp_path: Path) -> None:
    workdir.create(tmp_path, "gone.py", CONFIG)
    assert configs.read(tmp_path)["file"] is None
    workdir.create(tmp_path, "experiments/quickstart.py", CONFIG)
    assert Path(configs.read(tmp_path)["file"]).is_file()


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    message = said(workdir.check, tmp_path, "exp.py", CONFIG)
    assert message == f"{tmp_path} holds files but no run; give an empty folder with --workdir."
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_with_another_config(tmp_path: Path) -> None:
    workdir.create(tmp_path, "old.py:large", CONFIG)
    before = (tmp_path / "config.json").read_text()
    new = {"steps": 4, "towers": {"image": {"name": "vit", "width": 16}}, "seed": 1}
    message = said(workdir.check, tmp_path, "exp.py", new)
    assert message == (
        f"{tmp_path} holds a run of old.py:large with another config: config.steps: 3, now 4; "
        "config.towers.image.width: 8, now 16; config.seed: not there, now 1. "
        "Give another --workdir, or the old values."
    )
    assert (tmp_path / "config.json").read_text() == before


def test_many_differences_are_counted(tmp_path: Path) -> None:
    workdir.create(tmp_path, "old.py", {f"k{i}": i for i in range(9)})
    message = said(workdir.check, tmp_path, "exp.py", {f"k{i}": -1 for i in range(9)})
    assert "config.k3: 3, now -1 (and 5 more). Give" in message and "k4" not in message


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        message = said(workdir.check, folder, "exp.py", CONFIG)
        expected = "is a file, not a folder; give another place with --workdir."
        assert message == f"{tmp_path / 'file'} {expected}"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode)
    )
    message = said(workdir.check, tmp_path / "a" / "b", "exp.py", CONFIG)
    assert message == f"{tmp_path} cannot be written; give another place with --workdir."


def test_a_disk_that_does_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    message = said(workdir.create, tmp_path / "run", "exp.py", CONFIG)
    assert message == (
        f"{tmp_path / 'run'} cannot be written (No space left on device); give another place "
        "with --workdir."
    )


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock is the kernel's: of a process that is killed nothing stays."""
    folder = tmp_path / "run"
    program = "import sys, time; from pathlib import Path; from mmcl import workdir\n"
    program += f"with workdir.alone(Path({str(folder)!r})): print('in', flush=True); time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "in\n"

    def enter() -> None:
        with workdir.alone(folder):
            pass

    assert said(enter) == (
        f"{folder} is being trained by process {other.pid} on {socket.gethostname()}: stop that, "
        "or give another --workdir."
    )
    other.kill()
    other.wait()
    other.stdout.close()
    for _ in range(2):  # and twice in turn
        enter()
    assert [file.name for file in folder.iterdir()] == [workdir.LOCK]
    workdir.check(folder, "exp.py", CONFIG)  # still as good as empty


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with workdir.alone(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_the_newest_step_counts_complete_checkpoints_only(tmp_path: Path) -> None:
    assert workdir.newest_step(tmp_path) == 0
    for name in ("2", "10", "12.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert workdir.newest_step(tmp_path) == 10


def test_what_loads_the_data_may_change(tmp_path: Path) -> None:
    """No number depends on threads, workers and how many bad records are put up with; on the mesh
    only by the order of sums.
    """
    workdir.create(tmp_path, "exp.py", CONFIG | {"threads": 2, "stages": [{"workers": 1}]})
    new = CONFIG | {
        "workers": 3,
        "mesh": {"fsdp": 2},
        "sharding": [],
        "faults": {"share": 0.5},
        "stages": [{"threads": 1}],
    }
    workdir.check(tmp_path, "exp.py", new)
    workdir.check(tmp_path, "exp.py", new | {"checkpoint": {"best": "eval/val/x"}, "wandb": None})
    message = said(workdir.check, tmp_path, "exp.py", new | {"faults": {"record_bytes": 9}})
    assert "config.faults: not there, now {'record_bytes': 9}" in message


@pytest.mark.parametrize("folder", ["gs://bucket/run", "gs:/bucket/run", "s3://bucket/run"])
def test_a_url_is_no_folder(folder: str) -> None:
    message = said(workdir.check, Path(folder), "exp.py", CONFIG)
    assert message.endswith(
        "is no folder of this machine; mount the bucket, and give the path with --workdir."
    )
