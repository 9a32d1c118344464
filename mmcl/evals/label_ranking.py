"""All labels of a pool ranked for each record: the judgement of extreme multi-label retrieval.

With the C labels of the pool in the order of their cosines with a record that has R of them, and
hit_i whether the i-th is one of these,

    precision@k = 1/k  sum_{i≤k} hit_i          recall@k = 1/R  sum_{i≤k} hit_i
    ndcg@k = sum_{i≤k} hit_i / log2(i + 1)  /  sum_{i≤min(k, R)} 1 / log2(i + 1)

the means over records, as they are told of such methods (P043). Every label is encoded once.

Decided here: a wrong label with the same score comes before a right one, as `pairs.py` has it, and
a right one that ties with the best beyond the largest k counts as beyond it, too.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest as nearest_name
from data_pipelines.sources.labelled import Labels
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import TIE, check_unit, nearest
from mmcl.evals.raw_values import raw_values
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "label",
    at: Sequence[int] = (1, 3, 5),
) -> Figures:
    """How well the labels of each record are found in the whole pool.

    Args:
      embedded: the split, of a source `labelled`.
      model: encodes the labels.
      modality: what the records are searched by.
      label: the modality of the labels.
      at: the k.

    Returns:
      Under `label_ranking/<modality>/`: `precision@k`; of the largest k also `recall@k` and
      `ndcg@k`; `precision_chance`, `recall_chance@k` and `ndcg_chance@k`, what a random order of
      the pool would reach on average; the numbers of `queries` and of `labels` in the pool. Records
      of one concept are drawn together.

    Raises:
      InputError: no such modality, or its records have no lists of labels.
    """
    if modality not in embedded.z:
        near = nearest_name(modality, embedded.z)
        raise InputError(f"no modality '{modality}' in '{embedded.split}'.{near}")
    if not at or min(at) < 1:
        raise InputError(f"at={list(at)}: give numbers of labels, 1 or more")
    labels = raw_values(embedded, model, label)
    for id, one in zip(embedded.ids, labels):
        if not isinstance(one, Labels):
            raise InputError(
                f"'{label}' of '{id}' is a {type(one).__name__}, no list of labels of a pool: let "
                f"config.source be `labelled`, with entry='{label}'"
            )
    most = max(at)
    own_Q, pool = [one.own for one in labels], labels[0].pool
    z_QxD = check_unit(embedded.z[modality], modality)
    z_CxD = check_unit(model.encode(label, pool), label)
    right_Q = np.array([len(own) for own in own_Q])
    hit_QxK = hits(z_QxD, z_CxD, own_Q, most)
    random_QxK = np.where(np.arange(most) < len(pool), (right_Q / len(pool))[:, None], 0.0)
    concept_Q = embedded.labels["concept"]
    found, random = measures(hit_QxK, right_Q), measures(random_QxK, right_Q)
    figures: Figures = {
        f"precision@{k}": PerItem(hit_QxK[:, :k].mean(axis=1), concept_Q) for k in at
    }
    figures["precision_chance"] = float(np.mean(right_Q / len(pool)))
    for name in found:
        figures[f"{name}@{most}"] = PerItem(found[name], concept_Q)
        figures[f"{name}_chance@{most}"] = float(np.mean(random[name]))
    figures |= {"queries": float(len(own_Q)), "labels": float(len(pool))}
    return {f"label_ranking/{modality}/{name}": figure for name, figure in figures.items()}


def hits(
    z_QxD: np.ndarray, z_CxD: np.ndarray, own_Q: Sequence[Sequence[int]], most: int
) -> np.ndarray:
    """Whether the 1st, 2nd, ... of the labels is right: hit_QxK, bool, K = `most`."""
    index_QxM, score_QxM = nearest(z_QxD, z_CxD, most + 1)
    right_QxM = np.stack([np.isin(index_M, own) for index_M, own in zip(index_QxM, own_Q)])
    order_QxM = np.argsort(TIE * right_QxM - score_QxM, axis=1, kind="stable")
    if len(z_CxD) > most:
        right_QxM &= score_QxM > score_QxM[:, -1:] + TIE
    hit_QxM = np.take_along_axis(right_QxM, order_QxM, axis=1)[:, :most]
    return np.pad(hit_QxM, [(0, 0), (0, most - hit_QxM.shape[1])])


def measures(hit_Qxk: np.ndarray, right_Q: np.ndarray) -> dict[str, np.ndarray]:
    """Recall and nDCG of each query, linear in its hits."""
    k = hit_Qxk.shape[1]
    gain_k = 1 / np.log2(np.arange(k) + 2)
    best_Q = np.cumsum(gain_k)[np.minimum(right_Q, k) - 1]
    return {"recall": hit_Qxk.sum(axis=1) / right_Q, "ndcg": hit_Qxk @ gain_k / best_Q}
