"""WebDatasets in the layout of CLIP_benchmark, which has some forty sets of pictures in it.

folder/dataset_type.txt   "retrieval"; without it the set is one of classes
folder/classnames.txt     a class a line
folder/test/nshards.txt   the number of tars
folder/test/0.tar, ...    members key.jpg (webp, png), and key.cls or key.txt (a caption a line)
"""

import copy
from collections.abc import Mapping
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.files import LARGEST, folder_of, opened
from data_pipelines.folders import split_folder
from data_pipelines.sources import webdataset

IMAGE = "webp;png;jpg;jpeg"


class Source:
    """Records of a split: `image` (the file, bytes), and either the label `class` or `text` (a list
    of captions). Threads and pickles may share it.

    Args:
        folder: path or URL of the set, or for each split the folder of its tars.
        split: the subfolder that is meant, or one of those of `folder`.
        limit: keep the first so many records.
        largest: bytes of the largest record that is read.

    Raises:
        InputError: one of the files is missing, or not what it should be.
    """

    def __init__(
        self,
        *,
        folder: str | Mapping[str, str],
        split: str,
        limit: int | None = None,
        largest: int = LARGEST,
    ):
        tars = split_folder(folder, split)
        root = folder_of(tars)
        count = "".join(_lines(f"{tars}/nshards.txt"))
        if not count.isdecimal() or int(count) < 1:
            raise InputError(f"{tars}/nshards.txt should be the number of tars, not '{count}'")
        files = [f"{tars}/{number}.tar" for number in range(int(count))]
        named: dict[str, Any] = {"fields": {"image": IMAGE, "text": "txt"}}
        if not _retrieves(root):
            names = _lines(f"{root}/classnames.txt")
            named = {"fields": {"image": IMAGE, "class": "cls"}, "label_names": {"class": names}}
        self._tars = webdataset.Source(files=files, limit=limit, largest=largest, **named)
        self.label_names = self._tars.label_names

    def __len__(self) -> int:
        return len(self._tars)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record, or the Fault of the tar; `bad_label`: a class that has no name."""
        record = self._tars[index]
        number, names = record.get("class", 0), self.label_names.get("class", [""])
        if isinstance(number, int) and not 0 <= number < len(names):
            raise Fault("bad_label", f"{record['id']} is of class {number} of {len(names)}")
        if isinstance(record.get("text"), str):
            lines = (line.strip() for line in record["text"].splitlines())
            record["text"] = [line for line in lines if line]
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._tars = self._tars.only(*entries)
        return view


def _retrieves(root: str) -> bool:
    """Whether the set has captions.

    Raises:
        InputError: it is of another type.
    """
    try:
        kind = "".join(_lines(f"{root}/dataset_type.txt")).lower()
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    if kind not in ("retrieval", "classification"):
        raise InputError(f"{root} is of the type '{kind}', which cannot be read")
    return kind == "retrieval"


def _lines(file: str) -> list[str]:
    with opened(file) as opened_file:
        return [line.strip() for line in opened_file.read().decode().splitlines()]
