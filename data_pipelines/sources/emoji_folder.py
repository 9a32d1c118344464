"""A prepared folder of emoji: how its pictures are drawn, and its records written and read.

It holds a file of records for each split, sorted by concept, those concepts first that training
sees, and labels.json: the names of all labels' values, and how many concepts training sees.
"""

import bisect
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_pipelines import records
from data_pipelines.errors import InputError
from data_pipelines.records import Records
from data_pipelines.sources.emoji_concepts import Concept

SPLITS = ("train", "unseen_artist", "unseen_concept", "unseen_both")

Job = TypeVar("Job")


def check(name: str, split: str, limit: int | None) -> None:
    """What can be said before anything is made or opened.

    Raises:
      InputError: there is no such split, or nothing within the limit.
    """
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}: use one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no emoji: use 1 or more, or None for all")


class EmojiSplit:
    """One split of a prepared folder: `emoji[i]` is a record, read when it is asked for.

    Threads may share one, and a pickled one opens its file anew.

    Args:
      limit: keep the first so many of the concepts that training sees, in a fixed shuffled order,
        or of those that it does not; thus limited splits of two artists still show the same ones.
    """

    def __init__(self, folder: Path, split: str, limit: int | None):
        self.folder = folder
        self._records = Records(folder / f"{split}.arrayrecord")
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.label_names: dict[str, list[str]] = labels["names"]
        self._length = len(self._records)
        if limit is not None:
            first = 0 if split in ("train", "unseen_artist") else labels["seen_concepts"]
            self._length = bisect.bisect_left(
                range(self._length), first + limit, key=lambda i: self._records[i]["concept"]
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        record = self._records[index]
        return record | {"image": np.asarray(Image.open(io.BytesIO(record["image"])))}


def draw_all(jobs: Sequence[Job], draw: Callable[[Job], bytes | None]) -> dict[Job, bytes]:
    """The PNG of each job by several threads, with a progress bar; none where none is drawn."""
    columns = (
        TextColumn("pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ready in"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        drawn = pool.map(draw, jobs)
        found = dict(zip(jobs, progress.track(drawn, total=len(jobs)), strict=True))
    return {job: picture for job, picture in found.items() if picture is not None}


def write(
    folder: Path,
    concepts: Sequence[Concept],
    pictures: Mapping[tuple[Concept, str], bytes],
    artists: Sequence[str],
    split_of: Callable[[Concept, str], str | None],
    inline: Callable[[Concept], dict],
) -> dict[str, dict[str, int]]:
    """Writes records and labels of the pictures that have a split; returns the counts of each.

    Args:
      concepts: in the order of their numbers, those first that training sees.
      pictures: the PNG by concept and artist.
      inline: what else a record of a concept holds.
    """
    names = {
        "concept": [concept.name for concept in concepts],
        "artist": list(artists),
        "group": sorted({concept.group for concept in concepts}),
        "subgroup": sorted({concept.subgroup for concept in concepts}),
        "family": sorted({concept.family for concept in concepts}),
    }
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for number, concept in enumerate(concepts):
        for artist in artists:
            split = split_of(concept, artist)
            if split is None or (concept, artist) not in pictures:
                continue
            record = {
                "id": f"{artist}/{concept.code}",
                "concept": number,
                "artist": names["artist"].index(artist),
                "group": names["group"].index(concept.group),
                "subgroup": names["subgroup"].index(concept.subgroup),
                "family": names["family"].index(concept.family),
                "image": pictures[concept, artist],
            }
            splits[split].append(record | inline(concept))
    for split in SPLITS:
        records.write(folder / f"{split}.arrayrecord", splits[split])
    seen = sum(not concept.held_out for concept in concepts)
    labels = {"names": names, "seen_concepts": seen}
    (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    return {split: _counts(splits[split], names["artist"]) for split in SPLITS}


def _counts(split: list[dict], artists: list[str]) -> dict[str, int]:
    return {
        "records": len(split),
        "concepts": len({record["concept"] for record in split}),
        "families": len({record["family"] for record in split}),
        **Counter(artists[record["artist"]] for record in split),
    }
