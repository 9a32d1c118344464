"""Pictures with a right and a wrong caption of the same words, as ARO has them.

A JSON list of cases with `image_path`, `true_caption`, `false_caption`, and the part of the picture
that they are about, `bbox_x`, `bbox_y`, `bbox_w` and `bbox_h` in pixels (Yuksekgonul et al. 2022,
arXiv 2210.01936). VG-Relation has the `relation_name` of each, VG-Attribution its two `attributes`.
"""

import copy
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.files import LARGEST, beside, opened, read_whole
from data_pipelines.fits import short
from data_pipelines.folders import check_there, split_folder
from data_pipelines.picture_file import PictureFile

BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


class Case(NamedTuple):
    """One case, as the JSON has it."""

    path: str
    captions: tuple[str, str]  # the right one, the wrong one
    box: tuple[int, int, int, int]  # x, y, width, height
    relation: str


class Source:
    """Records of `image` (the part that the captions are about, a PNG), `text` (the right caption,
    the wrong one), and the labels `relation` and `picture`. Threads and pickles may share it.

    The id is the number of the case. The relation is `relation_name`, or the two attributes joined
    by `_`, or the same for all; the picture is what cases of one `image_path` share.

    Args:
        folder: where `visual_genome_relation.json` lies, and the pictures in `images`.
        split: "relation" or "attribution", or what else a JSON is called by.
        limit: keep the first so many records.
        largest: bytes of the largest picture that is read.

    Raises:
        InputError: the JSON is missing or holds something else, or pictures are missing.
    """

    def __init__(
        self,
        *,
        folder: str,
        split: str,
        limit: int | None = None,
        largest: int = LARGEST,
    ):
        folder = split_folder(folder, None)
        self._folder, self._largest = f"{folder}/images", largest
        self._entries: tuple[str, ...] = ("image", "text", "relation", "picture")
        self._cases = _cases(f"{folder}/visual_genome_{split}.json")[:limit]
        paths = list(dict.fromkeys(case.path for case in self._cases))
        relations = sorted({case.relation for case in self._cases})
        self._picture = {path: number for number, path in enumerate(paths)}
        self._relation = {name: number for number, name in enumerate(relations)}
        self.label_names = {"relation": relations, "picture": paths}
        check_there(paths, self._folder, "pictures")

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `missing_file`, `too_large`, or the picture is none; `empty_box`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        case = self._cases[index]
        record: dict[str, Any] = {"id": str(index)}
        if "image" in self._entries:
            file = read_whole(beside(self._folder, case.path), self._largest)
            record["image"] = cut_out(file, case.box)
        if "text" in self._entries:
            record["text"] = list(case.captions)
        if "relation" in self._entries:
            record["relation"] = self._relation[case.relation]
        if "picture" in self._entries:
            record["picture"] = self._picture[case.path]
        return record

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._entries = tuple(entry for entry in self._entries if entry in entries)
        return view


def cut_out(file: bytes, box: tuple[int, int, int, int]) -> bytes:
    """A PNG of that part of a picture.

    Raises:
        Fault: `empty_box`: there is nothing of the picture in it; or the file is no picture.
    """
    x, y, width, height = box
    part = PictureFile(file).pixels()[max(y, 0) : y + height, max(x, 0) : x + width]
    if not part.size:
        raise Fault("empty_box", f"{box} holds nothing of the picture")
    png = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(part)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _cases(file: str) -> list[Case]:
    with opened(file) as opened_file:
        try:
            listed = json.load(opened_file)
        except ValueError as error:
            raise InputError(f"{file} is no JSON: {' '.join(str(error).split())}") from error
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{file} should be a list of cases, and is {short(listed)}")
    return [_case(one, f"case {number} of {file}") for number, one in enumerate(listed)]


def _case(one: Any, where: str) -> Case:
    if not isinstance(one, Mapping):
        raise InputError(f"{where} is {short(one)}, and should be an object")
    for key in ("image_path", "true_caption", "false_caption"):
        if not isinstance(one.get(key), str) or not one[key]:
            raise InputError(f"'{key}' of {where} is {short(one.get(key))}, and should be a string")
    for key in BOX:
        if not isinstance(one.get(key), int | float) or isinstance(one[key], bool):
            raise InputError(f"'{key}' of {where} is {short(one.get(key))}, and should be a number")
    relation = one.get("relation_name") or "_".join(map(str, one.get("attributes", ())))
    x, y, width, height = (round(one[key]) for key in BOX)
    captions = one["true_caption"], one["false_caption"]
    return Case(one["image_path"], captions, (x, y, width, height), relation)
