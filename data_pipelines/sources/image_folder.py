"""Pictures in a folder a class, the layout of ImageNet and of torchvision's ImageFolder.

A class is known by the name of its folder, and its number by where that name stands in a list:
never by how the folders that are there happen to sort, which for `0`, `1`, ..., `10` or for a part
of the classes gives other numbers.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.files import LARGEST, read_whole
from data_pipelines.folders import split_folder, walked

ENDINGS = (".jpeg", ".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")


class Source:
    """Records of picture files: `image` (the file, bytes) and the label `class`. Threads and
    pickles may share it.

    The id is the path of the picture as seen from the folder. Files that are no pictures by their
    names, hidden ones, and those in no class folder are left out.

    Args:
        folder: path or URL of a folder that holds one a class, or one for each split.
        split: the subfolder that is meant, or one of those of `folder`. None: the folder itself.
        classes: names of folders in the order of the class numbers; those that are missing have no
            pictures. None: the folders that are there, sorted.
        class_names: what the classes are called, in the same order. None: as their folders.
        only_present: number only the classes that have pictures, in the same order, so that only
            they can be named.
        limit: keep the first so many records.
        largest: bytes of the largest picture that is read.

    Raises:
        InputError: there is no such folder, one is of no class, or there is no picture.
    """

    def __init__(
        self,
        *,
        folder: str | Mapping[str, str],
        split: str | None = None,
        classes: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        only_present: bool = False,
        limit: int | None = None,
        largest: int = LARGEST,
    ):
        self._folder, self._largest = split_folder(folder, split), largest
        paths = walked(self._folder)
        pictures = [path for path in paths if "/" in path and path.lower().endswith(ENDINGS)]
        if not pictures:
            raise InputError(f"{self._folder} holds no folders of pictures")
        there = sorted({_class(path) for path in pictures})
        classes = there if classes is None else list(classes)
        class_names = classes if class_names is None else list(class_names)
        if len(class_names) != len(classes) or len(set(classes)) != len(classes):
            raise InputError(
                f"class_names: there are {len(class_names)} for {len(set(classes))} different "
                f"classes of {len(classes)}; each class should be there once and have one name."
            )
        self._check(there, classes)
        if only_present:
            kept = set(there)
            pairs = [pair for pair in zip(classes, class_names) if pair[0] in kept]
            classes, class_names = [folder for folder, _ in pairs], [name for _, name in pairs]
        number = {name: i for i, name in enumerate(classes)}
        self._paths = pictures[:limit]
        self._class_N = np.array([number[_class(path)] for path in self._paths], np.int32)
        self._entries: tuple[str, ...] = ("image", "class")
        self.label_names = {"class": class_names}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `missing_file`, `too_large`, `unreadable`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        record: dict[str, Any] = {"id": self._paths[index]}
        if "image" in self._entries:
            record["image"] = read_whole(f"{self._folder}/{self._paths[index]}", self._largest)
        if "class" in self._entries:
            record["class"] = int(self._class_N[index])
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._entries = tuple(entry for entry in self._entries if entry in entries)
        return view

    def _check(self, there: Sequence[str], classes: Sequence[str]) -> None:
        """Every folder is that of a class."""
        strangers = sorted(set(there) - set(classes))
        if strangers:
            close = difflib.get_close_matches(strangers[0], classes, n=1)
            near = f"; did you mean '{close[0]}'?" if close else ""
            raise InputError(
                f"{len(strangers)} of {len(there)} folders in {self._folder} are of no class, the "
                f"first of them '{strangers[0]}'{near}"
            )


def _class(path: str) -> str:
    return path.partition("/")[0]
