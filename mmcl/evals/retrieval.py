"""Cross-modal retrieval: search the items of one modality with the items of another.

A query is answered when one of its right answers is among the K nearest (recall@K). Everything
here is exact: scores are computed without rounding, so that ties are ties on every machine and at
every block size, and no tie is ever counted in the model's favour.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded

BLOCK = 256  # queries scored at a time: BLOCK x gallery scores are all that is ever stored


def evaluate(
    embedded: Embedded,
    encode: object,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Retrieval between the distinct items of every two modalities.

    Args:
      embedded: the split.
      encode: not needed, nothing new is encoded.
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
    metrics = {}
    for from_, to in pairs:
        if from_ == to:
            raise InputError(
                f"retrieval from '{from_}' to itself finds the query: name another modality"
            )
        query, gallery = items(embedded, from_, label), items(embedded, to, label)
        label_Q, label_G = embedded.labels[label][query], embedded.labels[label][gallery]
        z_QxD = unit_rows(embedded.z[from_][query], from_)
        z_GxD = unit_rows(embedded.z[to][gallery], to)
        rank_Q = ranks(z_QxD, z_GxD, label_Q, label_G)
        right_Q = _count(label_Q, label_G)
        name = f"{from_}_to_{to}"
        for k in at:
            metrics[f"{name}/recall@{k}"] = float(np.mean(rank_Q <= k))
            metrics[f"{name}/chance@{k}"] = chance(right_Q, len(gallery), k)
        metrics[f"{name}/median_rank"] = float(np.median(rank_Q))
        metrics[f"{name}/queries"] = float(len(query))
        metrics[f"{name}/gallery"] = float(len(gallery))
    return metrics


def neighbours(
    embedded: Embedded,
    from_: str,
    to: str,
    k: int,
    queries: Sequence[int] | np.ndarray | None = None,
    label: str = "concept",
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest items of modality `to` for records of modality `from_`.

    `queries` are record numbers (all distinct items of `from_` by default); for new queries encode
    them and call `nearest`. Returns what `nearest` returns.
    """
    if queries is None:
        queries = items(embedded, from_, label)
    return nearest(embedded.z[from_][np.asarray(queries, np.int64)], embedded, to, k, label)


def nearest(
    z_QxD: np.ndarray, embedded: Embedded, to: str, k: int, label: str = "concept"
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest items of modality `to` for unit vectors z_QxD.

    Returns record numbers (Q, k), nearest first and in record order on ties, and their cosines
    (Q, k); fewer than k columns where the modality has fewer items.
    """
    gallery = items(embedded, to, label)
    z_GxD = unit_rows(embedded.z[to][gallery], to)
    order, score = [], []
    for _, score_BxG in _scores(unit_rows(z_QxD, "query"), z_GxD):
        order_Bxk = np.argsort(-score_BxG, axis=1, kind="stable")[:, :k]
        order.append(gallery[order_Bxk])
        score.append(np.take_along_axis(score_BxG, order_Bxk, axis=1))
    return np.concatenate(order), np.concatenate(score)


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
    first: dict[object, int] = {}
    for record, value in enumerate(embedded.shown[modality]):
        same = (value, int(embedded.labels[label][record])) if isinstance(value, str) else record
        first.setdefault(same, record)
    return np.fromiter(first.values(), np.int64)


def ranks(
    z_QxD: np.ndarray, z_GxD: np.ndarray, label_Q: np.ndarray, label_G: np.ndarray
) -> np.ndarray:
    """Rank (1 = nearest) of each query's best right answer, from `unit_rows` of both sides.

    A wrong item with the same score is ranked before a right one: a collapsed model comes last.
    """
    if not np.isin(label_Q, label_G).all():
        raise ValueError("some queries have no right answer in the gallery: leave them out")
    rank_Q = np.empty(len(z_QxD), np.int64)
    for block, score_BxG in _scores(z_QxD, z_GxD):
        right_BxG = label_Q[block, None] == label_G
        best_Bx1 = score_BxG.max(axis=1, keepdims=True, where=right_BxG, initial=-np.inf)
        rank_Q[block] = 1 + np.count_nonzero((score_BxG >= best_Bx1) & ~right_BxG, axis=1)
    return rank_Q


def chance(right_Q: np.ndarray, gallery: int, k: int) -> float:
    """Expected recall@K of a random order, for queries with right_Q right answers each.

    Of K items drawn without replacement none is right with the hypergeometric probability
    C(gallery - right, K) / C(gallery, K), here as a product over the draws.
    """
    right, queries = np.unique(right_Q, return_counts=True)
    draw = np.arange(min(k, gallery))
    wrong_RxK = np.maximum(gallery - right[:, None] - draw, 0) / (gallery - draw)
    return float(np.average(1 - wrong_RxK.prod(axis=1), weights=queries))


def unit_rows(z_NxD: np.ndarray, what: str) -> np.ndarray:
    """z as float64 on a grid of 2^-26, on which inner products of unit rows have no rounding.

    Products are then whole multiples of 2^-52 and partial sums stay below 2, which float64 holds
    exactly whatever the order of summation. The grid moves an entry by at most 2^-27, less than
    float32 arithmetic in an encoder does. Raises InputError for rows that are not unit vectors.
    """
    z_NxD = np.asarray(z_NxD, np.float64)
    unit_N = np.abs(np.linalg.norm(z_NxD, axis=1) - 1) < 0.01  # False for NaN
    if not unit_N.all():
        raise InputError(
            f"{np.count_nonzero(~unit_N)} of {len(z_NxD)} '{what}' embeddings are NaN or not of "
            "unit length: the model diverged; resume an earlier checkpoint at a lower learning rate"
        )
    return np.rint(z_NxD * 2**26) / 2**26


def _scores(z_QxD: np.ndarray, z_GxD: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(z_QxD), BLOCK):
        block = slice(start, min(start + BLOCK, len(z_QxD)))
        yield block, z_QxD[block] @ z_GxD.T


def _count(label_Q: np.ndarray, label_G: np.ndarray) -> np.ndarray:
    """How many gallery items carry each query's label."""
    value, count = np.unique(label_G, return_counts=True)
    return count[np.searchsorted(value, label_Q)]
