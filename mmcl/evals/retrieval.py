"""Cross-modal retrieval: search the items of one modality with the items of another.

A query is answered when one of its right answers is among the K nearest (recall@K); `pairs.py` says
what becomes of ties.

Decided here: where queries are told apart by a label (`by`), a string that several records show
counts once, under the value of the record that stands for it, the first; the gallery stays whole.
What has no right answer in the gallery, because records lack a modality, asks nothing.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals import pairs as all_pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem


def evaluate(
    embedded: Embedded,
    model: object,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    label: str = "concept",
    by: str | None = None,
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval between the distinct items of every two modalities.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      pairs: (from, to) modalities; None: all ordered pairs that some records have together.
      label: items with the same value are right answers of each other.
      by: a label; the queries of each of its values are judged by themselves as well.
      at: the K of recall@K.

    Returns:
      For each pair, under `<from>_to_<to>/`: `recall@K`, the share of queries with a right answer
      among the K nearest; `chance@K`, what a random order of the gallery would reach on average;
      `median_rank` of the best right answer (1 is perfect); the numbers of `queries` and of items
      in the `gallery`. Under `<from>_to_<to>/<by>/<value>/` the same of the queries of each value
      that occurs, by its name with "_" for spaces and slashes; equal names are one value.
    """
    if by is not None and by not in embedded.labels:
        raise InputError(f"no label '{by}' in '{embedded.split}'.{nearest(by, embedded.labels)}")
    figures: Figures = {}
    for from_, to in itertools.permutations(embedded.z, 2) if pairs is None else pairs:
        if from_ == to:
            raise InputError(
                f"retrieval from '{from_}' to itself finds the query: name another modality"
            )
        query, gallery = asked(embedded, from_, to, label)
        if not len(query) and pairs is None:
            continue
        if not len(query):
            raise InputError(f"no '{from_}' of '{embedded.split}' has a right answer in '{to}'")
        label_Q, label_G = embedded.labels[label][query], embedded.labels[label][gallery]
        z_QxD = all_pairs.check_unit(embedded.z[from_][query], from_)
        z_GxD = all_pairs.check_unit(embedded.z[to][gallery], to)
        rank_Q = all_pairs.ranks(z_QxD, z_GxD, label_Q, label_G)
        parts = {"": np.ones(len(query), bool)}
        if by is not None:
            parts |= parted(embedded, query, by)
        for part, those in parts.items():
            for metric, figure in answered(rank_Q[those], label_Q[those], label_G, at).items():
                figures[f"{from_}_to_{to}/{part}{metric}"] = figure
    return figures


def asked(embedded: Embedded, from_: str, to: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The items of one modality that have a right answer in another, and all of that."""
    query, gallery = items(embedded, from_, label), items(embedded, to, label)
    is_asked = np.isin(embedded.labels[label][query], embedded.labels[label][gallery])
    return query[is_asked], gallery


def parted(embedded: Embedded, query: np.ndarray, by: str) -> dict[str, np.ndarray]:
    """`<by>/<value>/` -> which of the queries have the value: (Q,) bool."""
    names = embedded.label_names.get(by)
    value_Q = embedded.labels[by][query]
    parts: dict[str, np.ndarray] = {}
    for value in np.unique(value_Q):
        name = re.sub(r"[ /]", "_", str(value) if names is None else names[value])
        parts[f"{by}/{name}/"] = parts.get(f"{by}/{name}/", False) | (value_Q == value)
    return parts


def answered(
    rank_Q: np.ndarray, label_Q: np.ndarray, label_G: np.ndarray, at: Sequence[int]
) -> Figures:
    """What `evaluate` says of a pair, by the ranks of its queries; a label's are drawn together."""
    right_Q = right_answers(label_Q, label_G)
    figures: Figures = {}
    for k in at:
        figures[f"recall@{k}"] = PerItem(rank_Q <= k, cluster_N=label_Q)
        figures[f"chance@{k}"] = chance(right_Q, len(label_G), k)
    figures["median_rank"] = PerItem(rank_Q, cluster_N=label_Q, median=True)
    return figures | {"queries": float(len(label_Q)), "gallery": float(len(label_G))}


def items(embedded: Embedded, modality: str, label: str) -> np.ndarray:
    """Record numbers that stand for the distinct items of a modality, in record order.

    Records that show the same string under the same label are one item, shown by the first of
    them; anything that is not a string is an item of its own. What a record lacks is none.
    """
    for what, name, known in [
        ("modality", modality, embedded.z),
        ("label", label, embedded.labels),
    ]:
        if name not in known:
            raise InputError(f"no {what} '{name}' in '{embedded.split}': it has {list(known)}")
    if not len(embedded.ids):
        raise InputError(f"the split '{embedded.split}' has no records to evaluate")
    record_N = np.flatnonzero(embedded.has(modality))
    if not len(record_N):
        raise InputError(f"no record of '{embedded.split}' has a '{modality}'")
    if not isinstance(embedded.shown[modality][0], str):
        return record_N
    first: dict[object, int] = {}
    for record in record_N.tolist():
        words = embedded.shown[modality][record]
        first.setdefault((words, int(embedded.labels[label][record])), record)
    return np.fromiter(first.values(), np.int64)


def chance(right_Q: np.ndarray, gallery: int, k: int) -> float:
    """Expected recall@K of a random order, for queries with right_Q right answers each.

    Of K items drawn without replacement none is right with the hypergeometric probability
    C(gallery - right, K) / C(gallery, K), here as a product over the draws.
    """
    right, queries = np.unique(right_Q, return_counts=True)
    draw = np.arange(min(k, gallery))
    wrong_RxK = np.maximum(gallery - right[:, None] - draw, 0) / (gallery - draw)
    return float(np.average(1 - wrong_RxK.prod(axis=1), weights=queries))


def right_answers(label_Q: np.ndarray, label_G: np.ndarray) -> np.ndarray:
    """How many gallery items carry each query's label."""
    value, count = np.unique(label_G, return_counts=True)
    return count[np.searchsorted(value, label_Q)]
