"""Checksums of a checkpoint's files: written as the last of them, compared before they are used."""

import hashlib
import json
from pathlib import Path

MARK = "commit_success.txt"  # orbax's, with the time in it


def write(folder: Path, within: str = "*", process: int = 0) -> None:
    """Note size and SHA-256 of every file in the folders of a folder, in `checksums.json`.

    What lies beside those folders is orbax's, which changes it later, and does without.

    Args:
        within: only of the folders of this name.
        process: of several that write folders of their own, which are joined later, those after
            the first write `checksums-<process>.json`.
    """
    found = {name: _facts(folder / name) for name in _names(folder, within)}
    name = "checksums.json" if process == 0 else f"checksums-{process}.json"
    (folder / name).write_text(json.dumps(found))


def damage(folder: Path) -> str | None:
    """What is not as it was written, in words, of the first such file; None: all is.

    A folder without checksums counts as damaged: they are written last.
    """
    there, files = _names(folder), sorted(folder.glob("checksums*.json"))
    if not files:
        return "checksums.json is missing"
    for file in files:
        try:
            written = json.loads(file.read_text())
            expected = {str(name): (int(n), str(digest)) for name, (n, digest) in written.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            return f"{file.name} is damaged"
        if missing := sorted(expected.keys() - there):
            return f"{missing[0]} is missing"
        for name, (size, digest) in expected.items():
            found_size, found_digest = _facts(folder / name)
            if found_size != size:
                return f"{name} has {found_size:,} bytes, not {size:,}"
            if found_digest != digest:
                return f"{name} has other bytes than were written"
    return None


def _names(folder: Path, within: str = "*") -> set[str]:
    files = (f for f in folder.glob(f"{within}/**/*") if f.is_file() and f.name != MARK)
    return {f.relative_to(folder).as_posix() for f in files}


def _facts(file: Path) -> tuple[int, str]:
    with file.open("rb") as opened:
        return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()
