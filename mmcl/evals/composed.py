"""Composed retrieval: a picture, and words that say what should be different in the one wanted.

    query = unit( w · z_reference + (1 - w) · z_modifier )

Paper: P358 (WeiMoCIR): its weighted mean, with embeddings of the gallery's items alone, without
captions of them.

Decided here: the reference itself is left out of the gallery, as it would often be the nearest; the
one right answer is the target. A query that cancels out is the zero vector, which ties with
everything and is never right.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines import files
from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks, unit_or_zero
from mmcl.evals.retrieval import chance, items
from mmcl.model import Model


class Triplets(NamedTuple):
    reference: np.ndarray  # (Q,) record numbers
    modifier: list[str]
    target: np.ndarray  # (Q,) record numbers


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    triplets: str,
    modality: str = "image",
    text: str = "text",
    weight: float = 0.5,
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Recall of the target among the items of a modality.

    Args:
      embedded: the split, whose items of `modality` are the gallery.
      model: encodes the modifiers.
      triplets: a file of JSON objects, one a line, with the texts `reference` (the id of a record),
        `modifier` and `target` (an id again).
      modality: of references and targets.
      text: of modifiers.
      weight: w, that of the reference; 1 searches by it alone, 0 by the words alone.
      at: the K of recall@K.

    Returns:
      Under `composed/`: `recall@K`; `chance@K`, that of a random order; `median_rank`; the numbers
      of `queries` and of items in the `gallery`, of which each query sees all but its reference.
    """
    if not 0 <= weight <= 1:
        raise InputError(f"weight={weight} should be from 0 to 1")
    gallery = items(embedded, modality, "concept")
    item_N = _item_of(embedded, modality, gallery)
    asked = read(triplets, embedded, item_N)
    z_GxD = check_unit(embedded.z[modality][gallery], modality)
    z_words_QxD = check_unit(model.encode(text, asked.modifier), "modifier")
    reference_Q, target_Q = item_N[asked.reference], item_N[asked.target]
    z_QxD = mixed(z_GxD[reference_Q], z_words_QxD, weight)
    rank_Q = ranks(z_QxD, z_GxD, target_Q, np.arange(len(gallery)), reference_Q)
    cluster_Q = embedded.labels["concept"][asked.reference]
    figures: Figures = {}
    for k in at:
        figures[f"composed/recall@{k}"] = PerItem(rank_Q <= k, cluster_Q)
        figures[f"composed/chance@{k}"] = chance(np.ones(1, np.int64), len(gallery) - 1, k)
    figures["composed/median_rank"] = PerItem(rank_Q, cluster_Q, median=True)
    figures["composed/queries"] = float(len(rank_Q))
    figures["composed/gallery"] = float(len(gallery))
    return figures


def mixed(z_reference_QxD: np.ndarray, z_modifier_QxD: np.ndarray, weight: float) -> np.ndarray:
    """unit(w · reference + (1 - w) · modifier): z_QxD, float32."""
    z_QxD = weight * z_reference_QxD.astype(np.float64) + (1 - weight) * z_modifier_QxD
    return unit_or_zero(z_QxD).astype(np.float32)


def read(path: str, embedded: Embedded, item_N: np.ndarray) -> Triplets:
    """The triplets of a file, whose records all are in the split.

    Raises:
      InputError: the file or a line cannot be read, or a record is unknown, or both are one item.
    """
    number = {name: i for i, name in enumerate(embedded.ids)}
    rejected = {one.id for one in embedded.rejected}
    found = Triplets(np.empty(0, np.int64), [], np.empty(0, np.int64))
    reference, target = [], []
    with files.opened(path) as file:
        for at, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _row(line, f"{path}, line {at}")
            records = [row["reference"], row["target"]]
            unknown = [name for name in records if name not in number]
            if unknown and (None in rejected or rejected.issuperset(unknown)):
                continue  # None: it could not even be read who it was
            if unknown:
                raise InputError(
                    f"{path}, line {at}: no record '{unknown[0]}' in '{embedded.split}', whose "
                    f"first is '{embedded.ids[0]}'"
                )
            first, second = (number[name] for name in records)
            if item_N[first] == item_N[second]:
                raise InputError(
                    f"{path}, line {at}: the reference is the target, which is left out"
                )
            reference.append(first)
            found.modifier.append(row["modifier"])
            target.append(second)
    if not reference:
        raise InputError(f"{path} holds no triplets that can be used")
    return found._replace(reference=np.array(reference), target=np.array(target))


def _row(line: bytes, where: str) -> dict[str, str]:
    keys = ("reference", "modifier", "target")
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in keys):
        raise InputError(f"{where}: should be an object with texts as {', '.join(keys)}")
    return row


def _item_of(embedded: Embedded, modality: str, gallery: np.ndarray) -> np.ndarray:
    """The gallery's item that each record shows: (N,) int64."""
    shown, concept_N = embedded.shown[modality], embedded.labels["concept"]
    if len(gallery) == len(embedded.ids):
        return np.arange(len(gallery))
    item = {(shown[record], int(concept_N[record])): i for i, record in enumerate(gallery)}
    return np.array([item[words, int(concept)] for words, concept in zip(shown, concept_N)])
