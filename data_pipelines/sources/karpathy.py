"""COCO and Flickr30k as Karpathy split them: one JSON says the split and the captions of a picture.

The splits of Karpathy and Fei-Fei 2015 (arXiv 1412.2306), by which retrieval is reported: `test`
has 5,000 pictures of COCO 2014 and 1,000 of Flickr30k. What the JSON says of a picture counts and
not the folder it lies in, for all of COCO's `test`, `val` and `restval` lie in `val2014`.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.files import LARGEST, beside, folder_of, opened, read_whole
from data_pipelines.folders import check_there, split_folder
from data_pipelines.names import nearest


class Source:
    """Records of pictures with all their captions: `image` (the file, bytes) and `text` (a list of
    strings), in the order of the JSON. Threads and pickles may share it.

    The id is COCO's (`cocoid`), or else the name of the picture.

    Args:
        file: path or URL of `dataset_coco.json` or `dataset_flickr30k.json`.
        split: one of those that the JSON has: train, restval (COCO only), val, test.
        folder: where the pictures lie, under `filepath` where the JSON has that. None: where it
            lies itself.
        limit: keep the first so many records.
        largest: bytes of the largest picture that is read.

    Raises:
        InputError: the JSON is missing or no such, there is no such split, or pictures are missing.
    """

    def __init__(
        self,
        *,
        file: str,
        split: str,
        folder: str | None = None,
        limit: int | None = None,
        largest: int = LARGEST,
    ):
        file = split_folder(file, None)
        self._folder = folder_of(file) if folder is None else split_folder(folder, None)
        self._largest = largest
        self._entries: tuple[str, ...] = ("image", "text")
        self.label_names: dict[str, list[str]] = {}
        listed = _listed(file)
        try:
            splits = {one["split"] for one in listed}
            those = [_record(one) for one in listed if one["split"] == split][:limit]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file} is not Karpathy's: a picture lacks 'split', 'filename' or "
                f"'sentences' ({error})"
            ) from error
        if not those:
            raise InputError(f"There is no split '{split}' in {file}.{nearest(split, splits)}")
        self._those = those
        check_there([path for _, path, _ in those], self._folder, f"pictures of '{split}'")

    def __len__(self) -> int:
        return len(self._those)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `missing_file`, `too_large`, `unreadable`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        id, path, captions = self._those[index]
        record: dict[str, Any] = {"id": id}
        if "image" in self._entries:
            record["image"] = read_whole(beside(self._folder, path), self._largest)
        if "text" in self._entries:
            record["text"] = list(captions)
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._entries = tuple(entry for entry in self._entries if entry in entries)
        return view


def _listed(file: str) -> Sequence[Any]:
    with opened(file) as opened_file:
        try:
            listed = json.load(opened_file)["images"]
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{file} is not Karpathy's: no JSON with 'images' ({reason})"
            ) from error
    if not isinstance(listed, list):
        raise InputError(f"{file} is not Karpathy's: its 'images' are no list")
    return listed


def _record(one: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Id, path of the picture, captions."""
    path = "/".join(part for part in (one.get("filepath"), one["filename"]) if part)
    captions = tuple(sentence["raw"].strip() for sentence in one["sentences"])
    return str(one.get("cocoid", one["filename"])), path, captions
