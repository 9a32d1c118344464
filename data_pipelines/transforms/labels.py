"""Labels of a large pool, of which each record has several: its own, and others to tell them from.

For losses of many right answers (P043). Where the pool is too large for all of it to be encoded in
every step, a batch has some: those of its records, and random ones. Decided here: each of these is
as likely, however many records have it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.sources.labelled import Labels
from data_pipelines.transform_list import Section
from data_pipelines.transforms import views


def sampled(
    value: Labels | str,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    count: int,
    most_positives: int,
    longest: int,
    transforms: Sequence[Section],
) -> dict[str, Any]:
    """Some labels of a record, and random others of the pool, each through a list of transforms.

    In training up to `most_positives` of its own, random ones, and so many others, each as likely,
    that there are `count`, if the pool has them; in evaluation the first of its own and no others.
    A string is a label alone, in one slot.

    Args:
        value: as the source `labelled` gives it.
        longest: how many labels of a record count as its own, the first; where the others turn up
            in another record's slots, they are taken for wrong.

    Returns:
        As of `views.each`: `value` (K, ...) and what else the transforms give, and `present` (K,)
        bool, K = `count`; `ids` (K,) int32, the labels' numbers in the pool, -1 where there is
        none; `positives` (P,) int32, P = `longest`, the numbers of all its own, -1 after the last;
        `raw`, all its own. Of a string the first two.

    Raises:
        InputError: `count` is less than `most_positives`, or this or `longest` less than 1.
    """
    if not 1 <= most_positives <= count or longest < 1:
        raise InputError(
            f"labels.sampled: most_positives={most_positives} should be from 1 to count={count}, "
            f"and longest={longest} 1 or more."
        )
    if isinstance(value, str):
        return views.each(value, rng=rng, train=train, folder=folder, most=1, transforms=transforms)
    own_P = np.array(value.own[:longest], np.int32)
    ids_K = own_P[:most_positives]
    if train:
        ids_K = rng.permutation(own_P)[:most_positives]
        ids_K = np.append(ids_K, _others(value, count - len(ids_K), rng))
    names = [value.pool[number] for number in ids_K]
    found = views.each(
        names, rng=rng, train=train, folder=folder, most=count, transforms=transforms
    )
    return found | {
        "ids": _padded(ids_K, count),
        "positives": _padded(own_P, longest),
        "raw": ", ".join(value.pool[number] for number in value.own),
    }


def _others(labels: Labels, most: int, rng: np.random.Generator) -> np.ndarray:
    """Different labels that are not the record's own."""
    enough = min(most + len(labels.own), len(labels.pool))
    drawn = rng.choice(len(labels.pool), enough, replace=False)
    return drawn[~np.isin(drawn, labels.own)][:most]


def _padded(ids: np.ndarray, length: int) -> np.ndarray:
    return np.pad(ids.astype(np.int32), (0, length - len(ids)), constant_values=-1)
