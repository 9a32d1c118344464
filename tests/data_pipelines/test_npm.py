import os
import shutil
import stat
from pathlib import Path

import pytest

from data_pipelines import npm
from data_pipelines.errors import InputError

VERSIONS = {"@a/b": "1.2.3", "c": "0.1.0"}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a shell script in the place of npm."""

    def write(script: str) -> None:
        (tmp_path / "bin").mkdir()
        npm_ = tmp_path / "bin" / "npm"
        npm_.write_text(f"#!/bin/sh\n{script}\n")
        npm_.chmod(npm_.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return write


def test_what_npm_is_asked(fake, tmp_path: Path) -> None:
    fake(f'for word in "$@"; do echo "$word" >> {tmp_path}/asked; done')
    assert npm.install(VERSIONS, tmp_path / "here") == tmp_path / "here" / "node_modules"
    command, *asked = (tmp_path / "asked").read_text().splitlines()
    assert command == "install"
    assert "--ignore-scripts" in asked  # nothing of a package ever runs
    assert asked[-4:] == ["--prefix", str(tmp_path / "here"), "@a/b@1.2.3", "c@0.1.0"]


def test_no_npm_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not on PATH.*install Node.js") as error:
        npm.install(VERSIONS, tmp_path)
    assert "\n" not in str(error.value)


def test_what_npm_says_is_passed_on(fake, tmp_path: Path) -> None:
    fake("echo 'npm error code ENOTFOUND' >&2; echo 'npm error the network is gone' >&2; exit 1")
    with pytest.raises(InputError, match="npm could not.*: code ENOTFOUND; the network is gone"):
        npm.install(VERSIONS, tmp_path)


def test_silent_failure(fake, tmp_path: Path) -> None:
    fake("exit 7")
    with pytest.raises(InputError, match="exit code 7"):
        npm.install(VERSIONS, tmp_path)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_small_package(tmp_path: Path) -> None:
    try:
        modules = npm.install({"emoji-regex": "10.3.0"}, tmp_path)
    except InputError as error:
        pytest.skip(f"the registry is not there: {error}")
    assert '"version": "10.3.0"' in (modules / "emoji-regex" / "package.json").read_text()
    assert os.listdir(modules)[0][0] in ".e"
