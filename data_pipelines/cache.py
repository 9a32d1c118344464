"""Prepared folders: data made once on this machine and checked whenever it is opened.

A prepared folder holds data files and a manifest.json with the size and SHA-256 of each. It is
written under a temporary name and renamed when complete, so that a folder that has its name is
whole, and any number of processes may prepare the same folder at once: one of them wins.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from data_pipelines.errors import InputError

FORMAT = 1
MANIFEST = "manifest.json"


def root(cache: str | os.PathLike | None = None) -> Path:
    """The cache folder: `cache`, else $MMCL_CACHE, else ~/.cache/mmcl."""
    return Path(cache or os.environ.get("MMCL_CACHE") or "~/.cache/mmcl").expanduser().absolute()


def prepared(
    name: str, build: Callable[[Path], dict], cache: str | os.PathLike | None = None
) -> Path:
    """The folder `name` under the cache, built if it is not there, verified in any case.

    Args:
      name: the folder's name; a new version of the data takes a new name.
      build: writes the data files into the empty folder it is given and returns what the manifest
        says besides sizes and digests (counts, versions of packages, ...).
      cache: where prepared folders are kept; None: see `root`.

    Raises:
      InputError: the cache cannot be written, or the folder is damaged or incomplete.
    """
    folder = root(cache) / name
    if not folder.exists():
        _build(folder, build)
    verify(folder)
    return folder


def existing(name: str, cache: str | os.PathLike | None, advice: str) -> Path:
    """The folder `name` under the cache, verified; never built.

    Args:
      advice: what to do where it is not there.

    Raises:
      InputError: it is not there, or damaged or incomplete.
    """
    folder = root(cache) / name
    if not folder.exists():
        raise InputError(f"{folder} is not there: {advice}")
    verify(folder)
    return folder


def verify(folder: Path) -> dict:
    """The manifest of a prepared folder, after a check of every file that it names.

    Raises:
      InputError: a file is missing or is not what was written.
    """

    def damaged(file: str, how: str) -> InputError:
        return InputError(f"{folder / file} is {how}: delete {folder} and run the command again")

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT
        files = {name: (of["bytes"], of["sha256"]) for name, of in manifest["files"].items()}
    except FileNotFoundError:
        raise damaged(MANIFEST, "missing") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise damaged(MANIFEST, "damaged") from None
    if not known:
        raise damaged(MANIFEST, "of another format")
    for file, facts in files.items():
        if not (folder / file).is_file():
            raise damaged(file, "missing")
        if _facts(folder / file) != facts:
            raise damaged(file, "damaged")
    return manifest


def _build(folder: Path, build: Callable[[Path], dict]) -> None:
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        facts = build(temporary)
        files = {path.name: _facts(path) for path in sorted(temporary.iterdir())}
        manifest = {"format": FORMAT, **facts} | {
            "files": {name: {"bytes": n, "sha256": digest} for name, (n, digest) in files.items()}
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first
                raise
    except OSError as error:
        raise InputError(
            f"cannot write {folder} ({error}): set MMCL_CACHE to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _facts(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
