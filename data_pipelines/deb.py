"""Packages of Debian as folders of data: downloaded and unpacked, not installed; no root needed."""

import shutil
import subprocess
from pathlib import Path

from data_pipelines.errors import InputError


def unpack(package: str, folder: Path) -> tuple[Path, str]:
    """The newest version of a package that apt offers; apt checks what it downloads.

    Args:
      folder: an empty folder.

    Returns:
      A folder that holds the package's files as they would lie under `/`, and its version.

    Raises:
      InputError: there is no apt-get or dpkg-deb, or one of them fails.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} not on PATH, and the data come from the Debian package "
            f"{package}: run the command on Debian or Ubuntu, and copy the cache from there"
        )
    _run(["apt-get", "download", "-qq", package], folder, "run apt-get update, as root, first?")
    (archive,) = folder.glob("*.deb")
    root = folder / "root"
    _run(["dpkg-deb", "--extract", str(archive), str(root)], folder, "is the disk full?")
    version = _run(["dpkg-deb", "--field", str(archive), "Version"], folder, "")
    archive.unlink()
    return root, version.strip()


def _run(command: list[str], folder: Path, advice: str) -> str:
    ran = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if not line.startswith("W:")]
        why = "; ".join(said[:3]) or f"exit code {ran.returncode}"
        raise InputError(f"`{' '.join(command[:3])}` failed: {why} ({advice})")
    return ran.stdout
