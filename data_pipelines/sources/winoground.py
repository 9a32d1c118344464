"""Pairs of pictures and captions, as Winoground has them: a line of JSON is a pair.

A line of `examples.jsonl` has `image_0`, `image_1`, `caption_0` and `caption_1`; `caption_0` is
right of `image_0` only (Thrush et al. 2022, arXiv 2204.03162). Others can be written so.
"""

import copy
import os
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.files import LARGEST, beside, folder_of, opened, read_whole
from data_pipelines.fits import short
from data_pipelines.folders import check_there, split_folder
from data_pipelines.sources.table import rows


class Source:
    """Two records a pair, one after the other: `image` (the file, bytes), `text`, and the label
    `pair`, the number of the line. Threads and pickles may share it.

    The id is that of the line, `id` or else its number, with `/0` or `/1` behind it.

    Args:
        file: path or URL of the JSON lines.
        split: the file is one split, which may be called by any name.
        folder: where the pictures lie. None: in `images` beside the file.
        ending: of names of pictures that have none.
        limit: keep the first so many records.
        largest: bytes of the largest picture that is read.

    Raises:
        InputError: the file is missing or has other lines, or pictures are missing.
    """

    def __init__(
        self,
        *,
        file: str,
        split: str | None = None,
        folder: str | None = None,
        ending: str = ".png",
        limit: int | None = None,
        largest: int = LARGEST,
    ):
        file = split_folder(file, None)
        folder = f"{folder_of(file)}/images" if folder is None else split_folder(folder, None)
        self._folder, self._largest = folder, largest
        self._entries: tuple[str, ...] = ("image", "text", "pair")
        self._those: list[tuple[str, str, str, int]] = []
        with opened(file) as opened_file:
            lines = list(rows(opened_file, file))
        names = [str(line.get("id", number)) for number, line in enumerate(lines)]
        for number, (name, line) in enumerate(zip(names, lines)):
            for k in (0, 1):
                image, caption = (_string(line, f"{key}_{k}", name) for key in ("image", "caption"))
                path = image if os.path.splitext(image)[1] else image + ending
                self._those.append((f"{name}/{k}", path, caption, number))
        if not lines:
            raise InputError(f"{file} has no lines")
        self._those = self._those[:limit]
        self.label_names = {"pair": names}
        check_there([path for _, path, _, _ in self._those], folder, "pictures")

    def __len__(self) -> int:
        return len(self._those)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `missing_file`, `too_large`, `unreadable`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        id, path, caption, pair = self._those[index]
        record: dict[str, Any] = {"id": id}
        if "image" in self._entries:
            record["image"] = read_whole(beside(self._folder, path), self._largest)
        if "text" in self._entries:
            record["text"] = caption
        if "pair" in self._entries:
            record["pair"] = pair
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._entries = tuple(entry for entry in self._entries if entry in entries)
        return view


def _string(line: dict[str, Any], key: str, name: str) -> str:
    found = line.get(key)
    if not isinstance(found, str) or not found:
        raise InputError(f"'{key}' of the pair {name} is {short(found)}, and should be a string")
    return found
