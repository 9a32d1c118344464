"""Retrieval within one modality: each item searches the others.

Of a query with R right answers among the others, of which the i-th best is at position p_i,

    recall@K = [ p_1 <= K ],   map@R = 1/R · sum over i with p_i <= R of  i / p_i

A loss between modalities sets no term on the cosines within one, and they are worse for it (P020).
MAP@R is that of Musgrave et al. 2020 (arXiv 2003.08505). Decided here: items whose label nobody
shares ask nothing, but can be found; a wrong item with the same score comes before a right one, so
that p_i = i + the wrong items that score more than s_i - TIE.
"""

from collections.abc import Sequence

import jax
import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals import pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.retrieval import chance, items
from mmcl.mesh import whole

CELLS = 2**24  # cosines that are in memory at once


def evaluate(
    embedded: Embedded,
    model: object,
    *,
    modalities: Sequence[str] | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval among the distinct items of each modality.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      modalities: which; None: all of which some items share a label.
      label: items with the same value are right answers of each other.
      at: the K of recall@K.

    Returns:
      Under `intra_modal_<label>/<modality>/`: `recall@K`; `chance@K`, what a random order of the
      others would reach on average; `map@R` and `map@R_chance`; the numbers of `queries` and of
      items in the `gallery`, of which each query sees all but itself.
    """
    figures: Figures = {}
    for modality in embedded.z if modalities is None else modalities:
        if modality not in embedded.z:
            near = nearest(modality, embedded.z)
            raise InputError(f"no modality '{modality}' in '{embedded.split}'.{near}")
        found = within(embedded, modality, label, at)
        if not found and modalities is not None:
            raise InputError(f"no two '{modality}' items of '{embedded.split}' share a '{label}'")
        name = f"intra_modal_{label}/{modality}"
        figures |= {f"{name}/{metric}": figure for metric, figure in found.items()}
    if not figures:
        raise InputError(
            f"no two items of '{embedded.split}' share a '{label}': give another 'label'"
        )
    return figures


def within(embedded: Embedded, modality: str, label: str, at: Sequence[int]) -> Figures:
    """The figures of one modality; none where no two items share the label."""
    record = items(embedded, modality, label)
    z_GxD = pairs.check_unit(embedded.z[modality][record], modality)
    _, label_G, of_label = np.unique(
        embedded.labels[label][record], return_inverse=True, return_counts=True
    )
    others_G = of_label[label_G] - 1
    query = np.flatnonzero(others_G)
    if not len(query):
        return {}
    n, right_Q = len(record) - 1, others_G[query]
    cluster_Q = embedded.labels["concept"][record[query]]
    rank_Q = pairs.ranks(z_GxD[query], z_GxD, label_G[query], label_G, query)
    figures: Figures = {}
    for k in at:
        figures[f"recall@{k}"] = PerItem(rank_Q <= k, cluster_Q)
        figures[f"chance@{k}"] = chance(right_Q, n, k)
    precision_Q = average_precision(z_GxD, label_G, query)
    figures["map@R"] = PerItem(precision_Q, cluster_Q)
    figures["map@R_chance"] = map_chance(right_Q, n)
    return figures | {"queries": float(len(query)), "gallery": float(len(record))}


def average_precision(z_GxD: np.ndarray, label_G: np.ndarray, query: np.ndarray) -> np.ndarray:
    """map@R of each query, which are gallery rows: (Q,) float64.

    By blocks of queries, whose cosines are sorted here: R may be a large part of the gallery.
    """
    order = np.argsort(label_G, kind="stable")  # right answers lie side by side
    place_G = np.argsort(order)
    first = np.searchsorted(label_G[order], label_G[query])
    last = np.searchsorted(label_G[order], label_G[query], side="right")
    cols = pairs.side(z_GxD[order])
    step = max(pairs.FILLED, CELLS // len(z_GxD))
    found = []
    for start in range(0, len(query), step):
        those = query[start : start + step]
        score_BxG = jax.device_get(_scores(pairs.side(z_GxD[those]), cols))
        block = slice(start, start + step)
        for score_G, own, a, b in zip(score_BxG, place_G[those], first[block], last[block]):
            right = np.concatenate([score_G[a:own], score_G[own + 1 : b]])
            wrong = np.concatenate([score_G[:a], score_G[b : len(z_GxD)]])
            found.append(_average_precision(right, wrong))
    return np.array(found)


def _average_precision(right: np.ndarray, wrong: np.ndarray) -> float:
    """Of one query, from the scores of its right answers and of all others."""
    n = len(right)
    wrong = wrong if len(wrong) <= n else np.partition(wrong, -n)[-n:]  # others are beyond R
    i_R = np.arange(1, n + 1)
    least_R = -np.sort(-right) - np.float32(pairs.TIE)  # what comes before the i-th best
    p_R = i_R + len(wrong) - np.searchsorted(np.sort(wrong), least_R, side="right")
    return float(np.sum((i_R / p_R)[p_R <= n]) / n)


def map_chance(right_Q: np.ndarray, n: int) -> float:
    """Expected map@R of a random order of n others.

    Position p holds a right answer with probability R/n, and then each of the p - 1 before it with
    (R - 1) / (n - 1).
    """
    found = []
    right, queries = np.unique(right_Q, return_counts=True)
    for r in right:
        p_R = np.arange(1, r + 1)
        found.append(np.sum((1 + (p_R - 1) * (r - 1) / max(n - 1, 1)) / p_R) / n)
    return float(np.average(found, weights=queries))


@jax.jit
def _scores(rows: pairs.Side, cols: pairs.Side) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return whole(pairs.cosine(rows, cols))
