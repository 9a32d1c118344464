"""Hubs, items that are among the nearest of too many queries, and recall with items pushed apart.

Paper: P300 (InvGC).

With N_k(g), of how many queries gallery item g is among the k nearest,

    skewness = E[ (N_k - mean N_k)^3 ] / std(N_k)^3

is that of Radovanović et al. 2010; anti-hubs are items with N_k = 0. InvGC (P300) moves every
gallery item away from what is like it in two banks, one of queries and one of gallery items:

    x <- unit( 1/2 unit(x - r · m(queries)) + 1/2 unit(x - r · m(gallery)) )
    m(bank) = mean_j (x·b_j) b_j  over the rows b_j of a bank;  LocalAdj: over the k nearest rows

The mean over a whole bank is x times the D × D matrix of its second moments, so that no similarity
is stored. Decided here: one r for both banks, similarities as they are and not less their mean, and
the banks are of the split that is judged unless another is named. For r <= 1 the mean over a bank
turns no direction round. An item of the bank is its own neighbour. Intervals are of the gallery
for `antihubs` and of the queries for recall, as if the other side were given.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals import pairs as all_pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.model import Model

ROWS = 1024  # whose neighbours are in memory at once


class Items(NamedTuple):
    """The distinct items of a modality."""

    z: np.ndarray  # z_NxD, float32
    label: np.ndarray  # label_N


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    label: str = "concept",
    k: int = 10,
    at: Sequence[int] = (1, 5, 10),
    r: float = 0.5,
    banks: str | None = None,
) -> Figures:
    """Hubness and recall of retrieval, as it is and after inverse graph convolution.

    Args:
      embedded: the split that is judged.
      model: encodes the split of the banks.
      pairs: (from, to) modalities; all ordered pairs by default.
      label: items with the same value are right answers of each other.
      k: how near counts as near, for N_k and for LocalAdj.
      at: the K of recall@K.
      r: how far items are pushed; whether that helps, and at what r, is to be found out.
      banks: the split whose queries and gallery are the banks; None: that which is judged.

    Returns:
      Under `hubness/<from>_to_<to>/`, and after InvGC under `hubness_invgc/...` and with LocalAdj
      under `hubness_local/...`: `skewness`, where N_k differs; `antihubs`, their share of the
      gallery; `largest_share`, that of the queries which have the greatest hub among their k;
      `recall@K` of queries that have a right answer. `chance@K`, that of a random order, and
      `random_antihubs`, the share where each query has k random neighbours, only under `hubness/`.
    """
    if k < 1 or r < 0:
        raise InputError(f"k={k}, r={r}: k should be 1 or more, r 0 or more")
    pairs = list(itertools.permutations(embedded.z, 2)) if pairs is None else pairs
    wanted = dict.fromkeys(modality for pair in pairs for modality in pair)
    judged = {modality: _items(embedded, modality, label) for modality in wanted}
    bank = {modality: judged[modality].z for modality in wanted}
    if banks not in (None, embedded.split):
        other = model.embed(banks, list(wanted))
        bank = {modality: _items(other, modality, "concept").z for modality in wanted}
    figures: Figures = {}
    for from_, to in pairs:
        query, gallery = judged[from_], judged[to]
        right_Q = np.isin(query.label, gallery.label)
        if not right_Q.any():
            raise InputError(f"no '{from_}' item of '{embedded.split}' has a right '{to}'")
        for task, z_GxD in [
            ("hubness", gallery.z),
            ("hubness_invgc", pushed(gallery.z, (bank[from_], bank[to]), r)),
            ("hubness_local", pushed(gallery.z, (bank[from_], bank[to]), r, k)),
        ]:
            moved = gallery._replace(z=z_GxD)
            for metric, figure in (hubs(query, moved, k) | recall(query, moved, at)).items():
                figures[f"{task}/{from_}_to_{to}/{metric}"] = figure
        n = len(gallery.z)
        answers_Q = right_answers(query.label[right_Q], gallery.label)
        name = f"hubness/{from_}_to_{to}"
        figures |= {f"{name}/chance@{K}": chance(answers_Q, n, K) for K in at}
        figures[f"{name}/random_antihubs"] = max(1 - k / n, 0.0) ** len(query.z)
    return figures


def hubs(query: Items, gallery: Items, k: int) -> Figures:
    """Of the numbers of queries that have each gallery item among their k nearest."""
    times_G = occurrences(query.z, gallery.z, k)
    figures: Figures = {
        "antihubs": PerItem(times_G == 0, gallery.label),
        "largest_share": float(times_G.max() / len(query.z)),
    }
    apart_G = times_G - times_G.mean()
    if apart_G.any():
        figures["skewness"] = float(np.mean(apart_G**3) / np.mean(apart_G**2) ** 1.5)
    return figures


def occurrences(z_QxD: np.ndarray, z_GxD: np.ndarray, k: int) -> np.ndarray:
    """N_k of each gallery row: (G,) int64."""
    index_Qxk, _ = all_pairs.nearest(z_QxD, z_GxD, k)
    return np.bincount(index_Qxk.ravel(), minlength=len(z_GxD))


def recall(query: Items, gallery: Items, at: Sequence[int]) -> Figures:
    """Of the queries with a right answer in the gallery."""
    those_Q = np.isin(query.label, gallery.label)
    label_Q = query.label[those_Q]
    rank_Q = all_pairs.ranks(query.z[those_Q], gallery.z, label_Q, gallery.label)
    return {f"recall@{K}": PerItem(rank_Q <= K, label_Q) for K in at}


def pushed(
    z_NxD: np.ndarray, banks: Sequence[np.ndarray], r: float, k: int | None = None
) -> np.ndarray:
    """Rows after InvGC by these banks, over the k nearest rows of each or, without k, over all."""
    moved = [_unit(z_NxD - r * like(z_NxD, z_BxD, k), z_NxD) for z_BxD in banks]
    return _unit(np.mean(moved, axis=0), z_NxD).astype(np.float32)


def like(z_NxD: np.ndarray, z_BxD: np.ndarray, k: int | None) -> np.ndarray:
    """mean_j (x·b_j) b_j over a bank: (N, D) float64."""
    if k is None:
        z_BxD = z_BxD.astype(np.float64)
        return z_NxD @ (z_BxD.T @ z_BxD / len(z_BxD))
    index_Nxk, cosine_Nxk = all_pairs.nearest(z_NxD, z_BxD, k)
    parts = []
    for start in range(0, len(z_NxD), ROWS):
        those = slice(start, start + ROWS)
        cosine = cosine_Nxk[those].astype(np.float64)
        parts.append(np.einsum("nk,nkd->nd", cosine, z_BxD[index_Nxk[those]]) / cosine.shape[1])
    return np.concatenate(parts)


def _items(embedded: Embedded, modality: str, label: str) -> Items:
    if modality not in embedded.z:
        near = nearest(modality, embedded.z)
        raise InputError(f"no modality '{modality}' in '{embedded.split}'.{near}")
    record = items(embedded, modality, label)
    z_NxD = all_pairs.check_unit(embedded.z[modality][record], modality)
    return Items(z_NxD, embedded.labels[label][record])


def _unit(x_NxD: np.ndarray, else_NxD: np.ndarray) -> np.ndarray:
    """Rows of length one; those of the other where nothing but rounding is left."""
    length_N = np.linalg.norm(x_NxD, axis=1, keepdims=True)
    return np.where(length_N > 1e-5, x_NxD / np.maximum(length_N, 1e-5), else_NxD)
