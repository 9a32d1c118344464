"""Records of several files, numbered through."""

import bisect
import itertools
from collections import Counter
from collections.abc import Sequence

from data_pipelines import files
from data_pipelines.errors import InputError


class Shards:
    """Which row of which file is record i: the files one after the other, as they are given.

    Args:
        paths: the files.
        rows: how many records each has.
        limit: the first so many are all.

    Raises:
        InputError: there is no record, or `limit` leaves none.
    """

    def __init__(self, paths: Sequence[str], rows: Sequence[int], limit: int | None = None):
        if limit is not None and limit < 1:
            raise InputError(f"limit={limit} leaves no record: use 1 or more, or None for all.")
        self.paths = list(paths)
        self._ends = list(itertools.accumulate(rows))
        self._length = min(self._ends[-1], limit or self._ends[-1])
        if not self._length:
            raise InputError(f"there is no record in {', '.join(self.paths[:3])}")

    def __len__(self) -> int:
        return self._length

    def __call__(self, index: int) -> tuple[int, int]:
        """Record -> (number of the file, row in it)."""
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        file = bisect.bisect_right(self._ends, index)
        return file, int(index) - (self._ends[file - 1] if file else 0)

    def name(self, file: int, row: int | str) -> str:
        """An identity that stays the same whatever other files there are, and wherever they lie."""
        return f"{files.name_of(self.paths[file])}/{row}"

    def check_names(self) -> None:
        """No two files may be called the same, for then two records would.

        Raises:
            InputError: two are.
        """
        [(name, times)] = Counter(map(files.name_of, self.paths)).most_common(1)
        if times > 1:
            raise InputError(
                f"{times} files are called {name}, so ids would clash: say by "
                "`id` which field is the id, or make each a source of its own."
            )
