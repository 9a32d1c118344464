"""A file system far away, that counts what it is asked for, and can fail."""

from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class Remote(MemoryFileSystem):
    """`counted://`: what is read in pieces is counted, and nothing is read while `broken`."""

    protocol = "counted"
    store: dict = {}
    pseudo_dirs = [""]
    asked: list[int] = []  # bytes of every piece
    broken: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counted://"))

    def cat_file(self, path, start=None, end=None, **options):
        if Remote.broken is not None:
            raise Remote.broken
        data = super().cat_file(path, start, end, **options)
        self.asked.append(len(data))
        return data

    @classmethod
    def put_folder(cls, folder: Path) -> str:
        """A copy of all files of a folder; its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                url = f"/bucket/{path.relative_to(folder)}"
                fsspec.filesystem("counted").pipe(url, path.read_bytes())
        return "counted://bucket"


@pytest.fixture
def remote():
    fsspec.register_implementation("counted", Remote, clobber=True)
    Remote.store.clear()
    Remote.asked.clear()
    Remote.broken = None
    yield Remote
    Remote.broken = None


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Indexes and copies of a test go where nothing else is."""
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
