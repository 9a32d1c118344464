"""Cross-modal retrieval: search the items of one modality with the items of another.

A query is answered when one of its right answers is among the K nearest (recall@K); `pairs.py` says
what becomes of ties.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals import pairs as all_pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem


def evaluate(
    embedded: Embedded,
    model: object,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval between the distinct items of every two modalities.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      pairs: (from, to) modalities; all ordered pairs by default.
      label: items with the same value are right answers of each other.
      at: the K of recall@K.

    Returns:
      For each pair, under `<from>_to_<to>/`: `recall@K`, the share of queries with a right answer
      among the K nearest; `chance@K`, what a random order of the gallery would reach on average;
      `median_rank` of the best right answer (1 is perfect); the numbers of `queries` and of items
      in the `gallery`.
    """
    if pairs is None:
        pairs = list(itertools.permutations(embedded.z, 2))
    figures: Figures = {}
    for from_, to in pairs:
        if from_ == to:
            raise InputError(
                f"retrieval from '{from_}' to itself finds the query: name another modality"
            )
        query, gallery = items(embedded, from_, label), items(embedded, to, label)
        label_Q, label_G = embedded.labels[label][query], embedded.labels[label][gallery]
        z_QxD = all_pairs.check_unit(embedded.z[from_][query], from_)
        z_GxD = all_pairs.check_unit(embedded.z[to][gallery], to)
        rank_Q = all_pairs.ranks(z_QxD, z_GxD, label_Q, label_G)
        for metric, figure in answered(rank_Q, label_Q, label_G, at).items():
            figures[f"{from_}_to_{to}/{metric}"] = figure
    return figures


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
    them; anything that is not a string is an item of its own.
    """
    for what, name, known in [
        ("modality", modality, embedded.z),
        ("label", label, embedded.labels),
    ]:
        if name not in known:
            raise InputError(f"no {what} '{name}' in '{embedded.split}': it has {list(known)}")
    if not len(embedded.ids):
        raise InputError(f"the split '{embedded.split}' has no records to evaluate")
    if not isinstance(embedded.shown[modality][0], str):
        return np.arange(len(embedded.ids))
    first: dict[object, int] = {}
    for record, words in enumerate(embedded.shown[modality]):
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
