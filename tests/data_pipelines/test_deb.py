import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from data_pipelines import deb
from data_pipelines.errors import InputError


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_package_is_unpacked(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """With tools that do the same to files that are no packages."""
    script(tmp_path / "bin/apt-get", 'echo "$@" > ../asked; echo content > "$3_1.2-3_all.deb"')
    script(
        tmp_path / "bin/dpkg-deb",
        'if [ "$1" = --field ]; then echo 1.2-3; else mkdir "$3"; cp "$2" "$3/file"; fi',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    root, version = deb.unpack("some-package", folder)
    assert (tmp_path / "asked").read_text() == "download -qq some-package\n"
    assert version == "1.2-3"
    assert (root / "file").read_text() == "content\n"
    assert list(folder.iterdir()) == [root]  # the archive is gone


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_real_archive(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = tmp_path / "package/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: p\nVersion: 4.5\nArchitecture: all\nMaintainer: n <n@n>\nDescription: d\n"
    )
    (tmp_path / "package/usr/share").mkdir(parents=True)
    (tmp_path / "package/usr/share/é.txt").write_text("a picture")
    archive = tmp_path / "p_4.5_all.deb"
    subprocess.run(["dpkg-deb", "--build", control.parent.parent, archive], check=True)
    script(tmp_path / "bin/apt-get", f"cp {archive} .")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    root, version = deb.unpack("p", folder)
    assert version == "4.5"
    assert (root / "usr/share/é.txt").read_text() == "a picture"


def test_no_apt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(InputError, match="apt-get and dpkg-deb not on PATH.*Debian") as error:
        deb.unpack("p", folder)
    assert "\n" not in str(error.value)


def test_what_apt_says_is_passed_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(
        tmp_path / "bin/apt-get",
        "echo 'W: unsandboxed' >&2; echo 'E: Unable to locate package p' >&2; exit 100",
    )
    script(tmp_path / "bin/dpkg-deb", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(InputError, match="failed: E: Unable to locate package p .*apt-get update"):
        deb.unpack("p", folder)
