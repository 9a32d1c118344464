"""Files by path, brace range, glob or URL, on this machine or wherever fsspec reaches.

Two kinds of failure: what is wrong when a source is opened is an `InputError`; what is wrong when a
record is read is a `Fault`, for other records may still be whole.
"""

import contextlib
import difflib
import glob
import hashlib
import itertools
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec

from data_pipelines import cache as caches
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fits import short
from data_pipelines.names import nearest
from data_pipelines.progress import Bar

Paths = str | Sequence[str]
Files = str | Sequence[str] | Mapping[str, str | Sequence[str]]

LARGEST = 100_000_000  # bytes of one record, where nothing else is asked for
THREADS = 16  # that wait for a file system
_GAP = 16_384  # bytes between two ranges that are cheaper to read than to ask twice
_STAMPS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "created")
_INSTALL = "s3:// and gs:// need pip install 'mmcl[remote]'"


class Facts(NamedTuple):
    """What tells a file from one that was put in its place: bytes, and when or what it was."""

    size: int
    stamp: str


def listed(files: Files, split: str | None = None) -> list[str]:
    """The files that are meant, sorted and each once; local ones as absolute paths.

    Args:
        files: a path, a brace range (`shard-{000..099}.tar`), a glob, a URL of any of these, or a
            list; or a mapping of splits to these.
        split: the one that is taken from a mapping.

    Raises:
        InputError: nothing matches, there is no such split, or the file system is not known.
    """
    if isinstance(files, Mapping):
        if split is None or split not in files:
            raise InputError(f"There is no split '{split}'.{nearest(str(split), files)}")
        files = files[split]
    elif split is not None:
        raise InputError(
            f"There is no split '{split}': `files` is not parted into splits, as "
            f"files={{'{split}': ...}} would be."
        )
    found: set[str] = set()
    for pattern in [files] if isinstance(files, str) else files:
        for plain in [pattern] if _is_there(pattern) else braces(pattern):
            found.update(_matching(plain))
    if not found:
        raise InputError("`files` names no file.")
    return sorted(found)


def braces(pattern: str) -> list[str]:
    """`a{1..3}`, `{001..100}`, `{0..9..3}` and `{train,val}` written out, as a shell does."""
    opened = [i for i, letter in enumerate(pattern) if letter == "{"]
    for start in reversed(opened):  # the last that opens is an innermost one
        end = pattern.find("}", start)
        parts = _parts(pattern[start + 1 : end]) if end > 0 else None
        if parts is not None:
            whole = (pattern[:start] + part + pattern[end + 1 :] for part in parts)
            return list(itertools.chain.from_iterable(map(braces, whole)))
    return [pattern]


def name_of(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rpartition("/")[2]


def folder_of(path: str) -> str:
    """A path or URL without its last part."""
    return path.rstrip("/").rpartition("/")[0]


def beside(folder: str, path: str) -> str:
    """A path as seen from a folder; an absolute one, or a URL, is what it is."""
    if is_remote(path) or os.path.isabs(path):
        return path
    return f"{folder.rstrip('/')}/{path}"


def is_remote(path: str) -> bool:
    """Whether it is a URL, or a chain of them."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)", path))


@contextlib.contextmanager
def opening(path: str) -> Iterator[None]:
    """What a file system raises becomes an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except Exception as error:  # every file system has errors of its own
        raise InputError(f"cannot read {path}: {_line(error)}") from error


@contextlib.contextmanager
def reading(path: str, missing: str) -> Iterator[None]:
    """What a file system raises becomes a Fault: of kind `missing`, or `unreadable`."""
    try:
        yield
    except (InputError, Fault):
        raise
    except FileNotFoundError as error:
        raise Fault(missing, f"{path} is missing") from error
    except Exception as error:  # every file system has errors of its own
        raise Fault("unreadable", f"{path}: {_line(error)}") from error


def facts(path: str) -> Facts:
    """Size and time (or tag) of a file.

    Raises:
        InputError: it is not there, is a folder, or cannot be asked.
    """
    with opening(path):
        if not is_remote(path):
            found = os.stat(path)
            if os.path.isdir(path):
                raise InputError(f"{path} is a folder: name the files in it, as {path}/*")
            return Facts(found.st_size, str(found.st_mtime_ns))
        system, inside = file_system(path)
        info = system.info(inside)
        stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), "")
        return Facts(int(info.get("size") or 0), stamp)


def every_facts(paths: Sequence[str]) -> list[Facts]:
    """The facts of many files, asked for side by side."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(facts, paths))


@contextlib.contextmanager
def opened(path: str, **options: Any) -> Iterator[BinaryIO]:
    """A file to read from its start, or to move about in.

    Args:
        options: for the file system of a URL, as `cache_type`.

    Raises:
        InputError: it cannot be read; whatever the caller raises meanwhile goes through.
    """
    with contextlib.ExitStack() as stack:
        with opening(path):
            file = stack.enter_context(raw(path, **options))
        yield file


def raw(path: str, **options: Any) -> BinaryIO:
    """A file, or whatever its file system raises."""
    if is_remote(path):
        system, inside = file_system(path)
        file: BinaryIO = system.open(inside, "rb", **options)
        return file
    return open(path, "rb")


def file_system(path: str) -> tuple[Any, str]:
    """The file system of a URL, and what it calls the file.

    Raises:
        InputError: there is none of that name, or its package is missing.
    """
    protocol = re.split("://|::", path)[0]
    try:
        return fsspec.url_to_fs(path)
    except ImportError as error:
        raise InputError(f"{path}: {_line(error)}; {_INSTALL}") from error
    except ValueError as error:
        known = {*fsspec.available_protocols(), *fsspec.registry}
        if protocol in known:
            raise
        close = nearest(protocol, difflib.get_close_matches(protocol, known))
        raise InputError(
            f"{path}: there is no file system '{protocol}'.{close} {_INSTALL}"
        ) from error


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Pieces (start, size) of a shard; those that lie close together come by one request.

    Raises:
        Fault: `vanished_shard`, `truncated_shard`, `unreadable`.
    """
    merged: list[list[int]] = []
    for start, size in sorted(ranges):
        if merged and start - merged[-1][1] <= _GAP:
            merged[-1][1] = max(merged[-1][1], start + size)
        else:
            merged.append([start, start + size])
    with reading(path, "vanished_shard"):
        if is_remote(path):
            system, inside = file_system(path)
            pieces = [system.cat_file(inside, start=start, end=end) for start, end in merged]
        else:
            with open(path, "rb", buffering=0) as file:
                pieces = [_all_of(file, start, end) for start, end in merged]
    found = []
    for start, size in ranges:
        at = next(i for i, (first, end) in enumerate(merged) if first <= start < end or not size)
        offset = start - merged[at][0]
        piece = pieces[at][offset : offset + size] if size else b""
        if len(piece) < size:
            raise Fault("truncated_shard", f"{path} ends before byte {start + size}")
        found.append(piece)
    return found


def read_whole(path: str, largest: int = LARGEST) -> bytes:
    """All of a small file that one record names.

    Raises:
        Fault: `missing_file`, `too_large` (over `largest` bytes), `unreadable`.
    """
    with reading(path, "missing_file"), raw(path) as file:
        # Where the size is known, no buffer of `largest` bytes has to be made.
        size = largest if is_remote(path) else min(largest, os.fstat(file.fileno()).st_size)
        data = file.read(size + 1)
    return not_too_large(data, largest, path)


def contents(path: Any, folder: str, largest: int = LARGEST) -> Any:
    """What is in the file of a path as a record names it, or in the files of a list of paths.

    Args:
        path: as seen from the folder; None or an empty string is no file, and gives None.

    Raises:
        Fault: as `read_whole`, or `bad_path` for what is no path.
    """
    if path is None or path == "":
        return None
    if isinstance(path, list):
        return [contents(one, folder, largest) for one in path]
    if not isinstance(path, str):
        raise Fault("bad_path", f"{short(path)} should be the path of a file")
    return read_whole(beside(folder, path), largest)


def not_too_large(data: bytes, largest: int, what: str) -> bytes:
    """The data itself, if it has at most `largest` bytes.

    Raises:
        Fault: `too_large`.
    """
    if len(data) > largest:
        raise Fault("too_large", f"{what} has more than {largest:,} bytes")
    return data


def copied(paths: Sequence[str], cache: str | os.PathLike | None = None) -> list[str]:
    """Local paths: those of remote files are whole copies in the cache, made where they lack.

    A copy is used as long as the original has its size and time (or tag).

    Raises:
        InputError: a file cannot be read, or the cache cannot be written.
    """
    remote = [path for path in paths if is_remote(path)]
    copies = dict(zip(remote, (_copy_of(path, cache) for path in remote)))
    known = dict(zip(remote, every_facts(remote)))
    stale = [path for path in remote if not _is_copy(copies[path], known[path])]
    total = sum(known[path].size for path in stale)
    with Bar("copying", total) as bar, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda path: _copy(path, copies[path], known[path], bar), stale))
    return [str(copies[path]) if path in copies else path for path in paths]


def _is_there(path: str) -> bool:
    return not is_remote(path) and os.path.exists(os.path.expanduser(path))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _all_of(file: Any, start: int, end: int) -> bytes:
    """Bytes from start to end, or to the end of the file: one call may give less than is there."""
    pieces = []
    while start < end and (piece := os.pread(file.fileno(), end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _parts(inside: str) -> list[str] | None:
    """What stands between braces: a list, a range, or neither."""
    if "," in inside:
        return inside.split(",")
    found = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?", inside)
    if found is None:
        return None
    first, last, step = found.groups()
    by = abs(int(step or 1)) or 1
    padded = any(re.match(r"-?0\d", number) for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    low, high = int(first), int(last)
    numbers = range(low, high + 1, by) if low <= high else range(low, high - 1, -by)
    return [f"{number:0{width}d}" for number in numbers]


def _matching(path: str) -> list[str]:
    """The files of one path or glob; a path without a glob may still prove to be missing."""
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if not is_remote(path):
        path = os.path.abspath(os.path.expanduser(path))
        if not glob.has_magic(path) or os.path.exists(path):
            return [path]
        found = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
    elif "::" in path:
        return [path]
    else:
        with opening(path):
            system, inside = file_system(path)
            whole = path.startswith("http") or not glob.has_magic(path)  # ? begins a query there
            those = [inside] if whole else system.glob(inside)
            found = [system.unstrip_protocol(name) for name in those]
    if not found:
        raise InputError(f"no file matches {path}")
    return found


def _copy_of(path: str, cache: str | os.PathLike | None) -> Path:
    """Where the copy of a remote file belongs: files of one folder stay together."""
    folder = hashlib.sha256(folder_of(path).encode()).hexdigest()[:16]
    return caches.root(cache) / "copies" / folder / name_of(path)


def _stamp_of(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.stamp")


def _is_copy(copy: Path, original: Facts) -> bool:
    with contextlib.suppress(OSError):
        return (
            copy.stat().st_size == original.size
            and _stamp_of(copy).read_text(encoding="utf-8") == original.stamp
        )
    return False


def _copy(path: str, copy: Path, original: Facts, bar: Bar) -> None:
    temporary = copy.with_name(f".{copy.name}-{uuid.uuid4().hex[:8]}")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with opened(path) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if temporary.stat().st_size != original.size:
            raise InputError(f"{path} changed while it was copied: run the command again")
        _stamp_of(copy).unlink(missing_ok=True)  # between the two renames there is no stamp
        temporary.rename(copy)
        temporary.write_text(original.stamp, encoding="utf-8")
        temporary.rename(_stamp_of(copy))
    except OSError as error:
        raise InputError(f"cannot copy {path} to {copy} ({_line(error)})") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone, or there never was one
            temporary.unlink()
    bar.advance(original.size)
