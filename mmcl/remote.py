"""A workdir at a URL (`gs://`, `s3://`, whatever fsspec reaches), worked on in a folder here.

What the URL holds is fetched before a run begins; what the run writes is uploaded meanwhile, in the
background. Nothing else needs to know: everybody reads and writes the folder.

- Files that grow or change (metrics.jsonl, rejected.jsonl, TensorBoard's events, config.json, ...)
  are uploaded whole, every `EVERY_S` seconds at most, for buckets cannot append.
- A checkpoint is uploaded once it is complete here, and after the rows of metrics before it. Then
  comes `checkpoints/STEP/.arrived-I-of-N`, from each of N processes for what it wrote. Only where
  all N have arrived is it a checkpoint; what a kill left half there is removed by the next run.
- A checkpoint that is kept no longer is removed there once a newer one has arrived.

Of earlier checkpoints a resume fetches what is known of them, but not their arrays. The folder lies
where temporary files do (`TMPDIR` says otherwise), needs room for the checkpoints kept, and is
removed at the end.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from fsspec.asyn import AsyncFileSystem

from data_pipelines import files
from data_pipelines.errors import InputError
from mmcl import checksums
from mmcl.workdir import LOCK, saved_steps

EVERY_S = 30.0  # between uploads of files that change
_LOOK_S = 0.5  # between looks for a new checkpoint
_OF_CHECKPOINT = re.compile(r"((?:.*/)?checkpoints/(\d+))/(.+)")  # (its folder, step, file)
_ARRIVED = re.compile(r"\.arrived-(\d+)-of-(\d+)")
_PROBE = ".mmcl-"  # a file of this name is written to see whether the URL takes any
_NOT_SENT = (".tmp", ".part", LOCK)  # ends of names of what is of this machine alone

Arrays = Literal["newest", "all", "none"] | int  # of which checkpoints, or of which step


class Mirror:
    """A folder of this machine and the URL that it mirrors; of a plain folder, itself.

    Attributes:
        folder: where to read and write.
        apart: whether each of several processes has such a folder of its own, so that only what
            all of them wrote is whole.
    """

    def __init__(self, place: Path | str, process: int = 0, processes: int = 1):
        self.folder, self.apart, self._url = Path(place), False, ""
        if isinstance(place, Path):
            return
        self._url, self._process, self._processes = place.rstrip("/"), process, processes
        self.apart = processes > 1
        self._system, root = files.file_system(self._url)
        self._root = root.rstrip("/")
        self._home = Path(tempfile.mkdtemp(prefix="mmcl-"))
        self.folder, self._leaving = self._home / files.name_of(self._url), self._home / "leaving"
        self.folder.mkdir()
        self._leaving.mkdir()
        self._there: dict[str, tuple[int, int]] = {}  # files as the URL has them: bytes, time
        self._steps: set[int] = set()  # whose checkpoints are there, or on their way
        self._gone: set[int] = set()  # of these, those that are no more here
        self._again: set[int] = set()  # and those that are once more
        self._pushing, self._holding = threading.Lock(), threading.Lock()

    def shown(self, path: Path | str) -> str:
        """A path, or a text with paths in it, as the user knows them."""
        return str(path).replace(str(self.folder), self._url) if self._url else str(path)

    def check_writable(self) -> None:
        """That the URL takes files.

        Raises:
            InputError: there is no such bucket, or no permission.
        """
        if not self._url:
            return
        probe = f"{self._root}/{_PROBE}{uuid.uuid4().hex}"
        with self._saying("cannot be written"):
            self._make_folder(probe)
            self._system.pipe_file(probe, b"mmcl")
            self._system.rm_file(probe)

    def pull(self, arrays: Arrays = "newest") -> None:
        """Fetch what the URL holds.

        Args:
            arrays: of which checkpoints; what else is known of them comes in any case.

        Raises:
            InputError: it cannot be read.
        """
        if not self._url:
            return
        with self._saying("cannot be read"), ThreadPoolExecutor(files.THREADS) as pool:
            found = self._listed()
            if found and arrays != "none" and "config.json" not in found:
                raise InputError(f"{self._url} holds files but no run: it has no config.json.")
            coming = _wanted(found, arrays)
            list(pool.map(self._fetch, coming))
            if arrays == "newest":
                coming += self._fetch_sound(found, pool)
        self._there |= {name: _facts(self.folder / name) for name in coming}
        self._steps = {step for folder, step in _arrived(found) if folder == f"checkpoints/{step}"}

    def _fetch_sound(self, found: set[str], pool: ThreadPoolExecutor) -> list[str]:
        """Where the newest checkpoint is damaged, the arrays of those before, until one is not."""
        fetched: list[str] = []
        for step in reversed(saved_steps(self.folder)):
            at = f"checkpoints/{step}/"
            if step != max(saved_steps(self.folder)):
                new = [name for name in found if name.startswith(f"{at}state/")]
                list(pool.map(self._fetch, new))
                fetched += new
            if checksums.damage(self.folder / at) is None:
                break
        return fetched

    def remove_unfinished(self) -> None:
        """Remove checkpoints at the URL that a kill left half uploaded."""
        found = self._listed()
        arrived = {folder for folder, _ in _arrived(found)}
        folders = {of[1] for name in found if (of := _OF_CHECKPOINT.fullmatch(name))}
        self._remove(folders - arrived, found)

    def push(self) -> None:
        """Upload what changed since the last time, and checkpoints that are complete.

        Raises:
            InputError: the URL does not take it; the folder is then kept.
        """
        if not self._url:
            return
        with self._pushing, self._saying("cannot be written"):
            self._hold()
            held = sorted(int(name) for name in os.listdir(self._leaving) if name.isdigit())
            changed = sorted(self._changed(), key=lambda name: name != "config.json")
            for name in changed[:1]:  # the config, without which the rest is no run
                self._send_changed(name)
            with ThreadPoolExecutor(files.THREADS) as pool:
                list(pool.map(self._send_changed, changed[1:]))  # rows before their checkpoint
                for step in held:
                    folder = self._leaving / str(step)
                    if step in self._again:  # what is there was damaged
                        self._again.discard(step)
                        self._remove({f"checkpoints/{step}"}, self._listed())
                    parts = [part for part in folder.rglob("*") if part.is_file()]
                    at = f"{self._root}/checkpoints/{step}"
                    paths = [f"{at}/{part.relative_to(folder).as_posix()}" for part in parts]
                    list(pool.map(self._put, parts, paths))
                    arrived = f".arrived-{self._process}-of-{self._processes}"
                    self._system.pipe_file(f"{at}/{arrived}", b"mmcl")
                    shutil.rmtree(folder)
            self._forget()

    @contextlib.contextmanager
    def pushing(self) -> Iterator[None]:
        """Inside, uploads go on in the background; what fails is said once and tried again."""
        done, said = threading.Event(), False

        def push() -> None:
            nonlocal said
            try:
                self.push()
                said = False
            except InputError as error:
                if not said:
                    print(f"mmcl: {error} It is tried again.", file=sys.stderr)
                said = True

        def watch() -> None:
            waited, job = 0.0, Future[None]()
            job.set_result(None)
            while not done.wait(_LOOK_S):
                waited += _LOOK_S
                new = self._hold()
                if job.done() and (new or waited >= EVERY_S):
                    waited, job = 0.0, pool.submit(push)

        if not self._url:
            yield
            return
        with ThreadPoolExecutor(1) as pool:
            watching = threading.Thread(target=watch, daemon=True)
            watching.start()
            try:
                yield
            finally:
                done.set()
                watching.join()

    def remove(self) -> None:
        """The folder here is done with."""
        if self._url:
            shutil.rmtree(self._home, ignore_errors=True)

    def _listed(self) -> set[str]:
        """Names of all files at the URL."""
        self._system.invalidate_cache()
        try:
            found = self._system.find(self._root)
        except FileNotFoundError:
            return set()
        below = f"{self._root}/"
        names = {path.removeprefix(below) for path in found if path.startswith(below)}
        return {name for name in names if not name.endswith("/") and not name.startswith(_PROBE)}

    def _fetch(self, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._system.get_file(f"{self._root}/{name}", str(target))

    def _put(self, file: Path, path: str) -> None:
        self._make_folder(path)
        self._system.put_file(str(file), path)

    def _make_folder(self, path: str) -> None:
        """That a file is to lie in, but in a bucket, which has none, and could be made itself."""
        if not isinstance(self._system, AsyncFileSystem):  # all buckets are
            self._system.makedirs(files.folder_of(path), exist_ok=True)

    def _changed(self) -> Iterable[str]:
        """Files of the folder, but checkpoints, that the URL has not, or has otherwise."""
        for top, folders, names in os.walk(self.folder):
            here = Path(top).relative_to(self.folder)
            if here.name == "checkpoints":
                folders.clear()
            for name in (here / name for name in names if not name.endswith(_NOT_SENT)):
                file = self.folder / name
                with contextlib.suppress(FileNotFoundError):
                    if file.is_file() and self._there.get(name.as_posix()) != _facts(file):
                        yield name.as_posix()

    def _send_changed(self, name: str) -> None:
        """By way of a copy, which does not grow meanwhile."""
        copy = self._leaving / f"copy-{uuid.uuid4().hex}"
        try:
            facts = _facts(self.folder / name)
            shutil.copyfile(self.folder / name, copy)
        except FileNotFoundError:  # it was there for a moment only
            return
        try:
            self._put(copy, f"{self._root}/{name}")
        finally:
            copy.unlink()
        self._there[name] = facts

    def _hold(self) -> bool:
        """Keep checkpoints that are complete and not yet there until they are, by hard links: the
        run may remove its own meanwhile. Whether there were any.
        """
        with self._holding:
            saved = set(saved_steps(self.folder))
            self._again |= self._gone & saved
            self._gone = (self._gone | self._steps - saved) - saved
            self._steps -= self._again
            new = sorted(saved - self._steps)
            for step in new:
                part = self._leaving / f"part-{step}"
                complete = self.folder / "checkpoints" / str(step)
                try:
                    shutil.copytree(complete, part, copy_function=os.link)
                    part.rename(self._leaving / str(step))
                except (FileNotFoundError, shutil.Error):  # it is removed just now
                    shutil.rmtree(part, ignore_errors=True)
                self._steps.add(step)
            return bool(new)

    def _forget(self) -> None:
        """Remove checkpoints there that the run has removed here, if a newer one has arrived."""
        gone = self._steps - set(saved_steps(self.folder))
        if not gone or self._process != 0:
            return
        found = self._listed()
        newest = max((step for _, step in _arrived(found)), default=-1)
        gone = {step for step in gone if step < newest}
        self._remove({f"checkpoints/{step}" for step in gone}, found)
        self._steps -= gone

    def _remove(self, folders: Iterable[str], found: Iterable[str]) -> None:
        """Marks first: what is half removed is no checkpoint."""
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                for name in found:
                    of = _OF_CHECKPOINT.fullmatch(name)
                    if of and of[1] == folder and _ARRIVED.fullmatch(of[3]):
                        self._system.rm_file(f"{self._root}/{name}")
                self._system.rm(f"{self._root}/{folder}", recursive=True)

    @contextlib.contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        """Whatever a file system raises, as one line about the URL."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # every file system has errors of its own
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{self._url} {what} ({cause}): see that the bucket is there and that you may use "
                "it, or give another place."
            ) from error


@contextlib.contextmanager
def mirrored(
    place: Path | str, arrays: Arrays = "newest", *, writes: tuple[int, int] | None = None
) -> Iterator[Mirror]:
    """A workdir, a path or a URL, to work on in a folder of this machine.

    Args:
        arrays: of which checkpoints; see `Mirror.pull`.
        writes: what changes in the folder is brought to the URL, by process i of n that work on it
            together: (i, n). None: only by `Mirror.push`.

    Raises:
        InputError: the URL cannot be used, before anything is done there; or it cannot take the
            rest at the end. Messages that name the folder, whoever raises them, name the URL.
    """
    mirror = Mirror(place, *(writes or (0, 1)))
    keep = False
    try:
        if writes is not None:
            mirror.check_writable()
        mirror.pull(arrays)
        if writes is None or isinstance(place, Path):
            yield mirror
            return
        if writes[0] == 0:
            mirror.remove_unfinished()
        try:
            with mirror.pushing():
                yield mirror
        finally:
            if not isinstance(sys.exception(), KeyboardInterrupt):  # who presses twice is in haste
                keep = True
                mirror.push()
                keep = False
    except InputError as error:
        kept = f" What is not there yet lies in {mirror.folder}." if keep else ""
        raise InputError(mirror.shown(str(error)) + kept) from error
    finally:
        if not keep:
            mirror.remove()


def _wanted(found: Iterable[str], arrays: Arrays) -> list[str]:
    """Which of the files at a URL are fetched: all but those of checkpoints that are not whole, and
    the arrays of some; for "none", only what tells how the runs below it stand.
    """
    arrived = _arrived(found)
    newest = max((step for _, step in arrived), default=None)

    def wanted(name: str) -> bool:
        of = _OF_CHECKPOINT.fullmatch(name)
        if of is None:
            return arrays != "none" or files.name_of(name) in ("config.json", "metrics.jsonl")
        if (of[1], int(of[2])) not in arrived or _ARRIVED.fullmatch(of[3]):
            return False
        if of[3].startswith("state/"):
            return arrays == "all" or int(of[2]) == (newest if arrays == "newest" else arrays)
        return True

    return [name for name in found if wanted(name)]


def _arrived(found: Iterable[str]) -> set[tuple[str, int]]:
    """Folder and step of the checkpoints that are whole, of the names of files at a URL."""
    marks: dict[tuple[str, int, int], set[int]] = {}
    for name in found:
        of = _OF_CHECKPOINT.fullmatch(name)
        if of and (mark := _ARRIVED.fullmatch(of[3])):
            marks.setdefault((of[1], int(of[2]), int(mark[2])), set()).add(int(mark[1]))
    return {(folder, step) for (folder, step, n), those in marks.items() if len(those) == n}


def _facts(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
