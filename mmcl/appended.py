"""A file that grows by lines, of which none is lost to a disk that is full for a while."""

import sys
from pathlib import Path


class Appended:
    """What the disk does not take is kept until it does; that it does not is said once."""

    def __init__(self, path: Path):
        self._path, self._said, self._waiting = path, False, b""
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        """The line is on disk afterwards, or waits for room."""
        self._waiting += line.encode()
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
            self._said = False
        except OSError as error:
            if not self._said:
                told = f"{self._path} cannot be written ({error.strerror}); it is tried again."
                print(f"mmcl: {told}", file=sys.stderr)
            self._said = True

    def close(self) -> None:
        self.write("")
        self._file.close()
