"""Folders of a data set, on this machine or wherever fsspec reaches: one a split, and its files."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from data_pipelines.errors import InputError
from data_pipelines.files import THREADS, beside, file_system, is_remote, opening
from data_pipelines.names import nearest

Folder = str | Mapping[str, str]


def split_folder(folder: Folder, split: str | None) -> str:
    """The folder of a split: `folder/split`, or what a mapping of splits to folders says.

    Raises:
        InputError: a mapping has no such split.
    """
    if isinstance(folder, Mapping):
        if split is None or split not in folder:
            raise InputError(f"There is no split '{split}'.{nearest(str(split), folder)}")
        found = folder[split]
    else:
        found = folder if split is None else f"{folder.rstrip('/')}/{split}"
    return found if is_remote(found) else os.path.abspath(os.path.expanduser(found))


def walked(folder: str) -> list[str]:
    """All files below a folder, as seen from it, sorted; hidden ones are left out.

    Raises:
        InputError: there is no such folder, or it cannot be read.
    """
    with opening(folder):
        if is_remote(folder):
            system, inside = file_system(folder)
            start = inside.rstrip("/") + "/"
            paths = [path.removeprefix(start) for path in system.find(inside)]
        else:
            os.listdir(folder)  # which says what `walk` keeps to itself
            paths = [
                os.path.relpath(os.path.join(at, name), folder)
                for at, _, names in os.walk(folder, followlinks=True)
                for name in names
            ]
    if not paths:
        raise InputError(f"{folder} is missing, or empty")
    return sorted(path for path in paths if not any(p.startswith(".") for p in path.split("/")))


def check_there(paths: Sequence[str], folder: str, what: str) -> None:
    """Every file that a list names, as seen from a folder, is there.

    Of URLs it is believed: what is missing then shows when it is read.

    Raises:
        InputError: how many are not, and the first of them.
    """
    local = [path for path in (beside(folder, path) for path in paths) if not is_remote(path)]
    with ThreadPoolExecutor(THREADS) as pool:
        missing = [path for path, there in zip(local, pool.map(os.path.isfile, local)) if not there]
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(paths):,} {what} are missing, the first of them {missing[0]}"
        )
