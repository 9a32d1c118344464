"""Packages of the npm registry as folders of data: nothing in them is ever run."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.errors import InputError

_OPTIONS = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error"]


def install(versions: Mapping[str, str], folder: Path) -> Path:
    """Exactly these versions, unpacked in `folder`; npm checks what it downloads by its digest.

    Args:
      versions: package -> version.
      folder: an empty folder.

    Returns:
      The folder that holds a folder for each package.

    Raises:
      InputError: there is no npm, or it fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "npm is not on PATH, and the data come from its registry: install Node.js "
            "(https://nodejs.org, or apt install npm) and run the command again"
        )
    wanted = [f"{package}@{version}" for package, version in versions.items()]
    ran = subprocess.run(
        [npm, "install", *_OPTIONS, "--prefix", str(folder), *wanted],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if ran.returncode:
        said = [line.split("error", 1)[-1].strip() for line in ran.stderr.splitlines() if line]
        why = "; ".join(said[:3]) or f"exit code {ran.returncode}"
        raise InputError(f"npm could not install {len(wanted)} packages of data: {why}")
    return folder / "node_modules"
