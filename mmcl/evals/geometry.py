"""The shape of the embedding space.

    gap(a, b)         = || mean_i a_i - mean_i b_i ||
    alignment(a, b)   = mean_i || a_i - b_i ||^2
    uniformity(a)     = log mean_{i != j} exp(-2 || a_i - a_j ||^2)
    tolerance(a)      = mean a_i . a_j over i != j of one class
    effective_rank(a) = exp(-sum_k p_k log p_k),  p = s / sum s, s the singular values of a - mean

The gap is that of Liang et al. 2022 (arXiv 2203.02053), alignment and uniformity are those of Wang
and Isola 2020 (arXiv 2005.10242); P003 relates the three across modalities. Tolerance is that of
P011, effective rank that of Roy and Vetterli 2007, here of the centred rows. Smaller is better for
the first three. Gap and alignment are taken over records that have both, so that both modalities
weigh a pair alike; the others over distinct items, because a caption that many records share is one
point.
"""

import itertools

import numpy as np

from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, log_mean_exp
from mmcl.evals.retrieval import items


def evaluate(
    embedded: Embedded, model: object, *, label: str = "concept", classes: str | None = None
) -> Figures:
    """`geometry/<a>_<b>/gap` and `/alignment` of every two modalities; `geometry/<a>/uniformity`,
    `/effective_rank` and, where there are classes, `/tolerance`.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      label: with the string itself, what makes two records one item of a modality.
      classes: the label that says what is of one class; None: `group` where there is one.

    Returns:
      Gap in [0, 2], alignment in [0, 4], uniformity in [-8, 0], tolerance in [-1, 1], effective
      rank in [1, D]. A modality with one item has no uniformity and no rank, one without two items
      of a class no tolerance.
    """
    if classes is None and "group" in embedded.labels:
        classes = "group"
    figures: Figures = {}
    for a, b in itertools.combinations(embedded.z, 2):
        both = embedded.has(a) & embedded.has(b)
        if not both.any():
            continue
        a_NxD, b_NxD = (check_unit(embedded.z[modality][both], modality) for modality in (a, b))
        gap_D = a_NxD.mean(axis=0, dtype=np.float64) - b_NxD.mean(axis=0, dtype=np.float64)
        figures[f"geometry/{a}_{b}/gap"] = float(np.linalg.norm(gap_D))
        apart_N = np.square(a_NxD - b_NxD).sum(axis=1)
        figures[f"geometry/{a}_{b}/alignment"] = PerItem(apart_N, embedded.labels[label][both])
    for modality, rows in embedded.z.items():
        distinct = items(embedded, modality, label)
        z_NxD = check_unit(rows[distinct], modality)
        if len(distinct) < 2:
            continue
        figures[f"geometry/{modality}/uniformity"] = log_mean_exp(z_NxD, 4.0) - 4.0
        figures[f"geometry/{modality}/effective_rank"] = effective_rank(z_NxD)
        if classes is not None:
            alike = tolerance(z_NxD, embedded.labels[classes][distinct])
            if alike is not None:
                figures[f"geometry/{modality}/tolerance"] = alike
    return figures


def tolerance(z_NxD: np.ndarray, class_N: np.ndarray) -> float | None:
    """Mean product of two rows of one class, over all such pairs; None where there are none.

    Of a class of n rows they sum up to || sum_i z_i ||^2 - sum_i || z_i ||^2, in n (n - 1) pairs.
    """
    _, class_N = np.unique(class_N, return_inverse=True)
    n_C = np.bincount(class_N)
    z_NxD = z_NxD.astype(np.float64)
    sum_CxD = np.zeros((len(n_C), z_NxD.shape[1]))
    np.add.at(sum_CxD, class_N, z_NxD)
    pairs = int(np.sum(n_C * (n_C - 1)))
    return float((np.square(sum_CxD).sum() - np.square(z_NxD).sum()) / pairs) if pairs else None


def effective_rank(z_NxD: np.ndarray) -> float:
    """Of how many directions the rows make use: 1 where they lie on a line, or in a point."""
    z_NxD = z_NxD.astype(np.float64)
    centred_NxD = z_NxD - z_NxD.mean(axis=0)
    square_D = np.linalg.eigvalsh(centred_NxD.T @ centred_NxD)
    s_D = np.sqrt(np.maximum(square_D, 0))
    s_D = s_D[s_D > 1e-6 * np.sqrt(len(z_NxD))]  # what rounding makes of none
    if not len(s_D):
        return 1.0
    p_D = s_D / s_D.sum()
    return float(np.exp(-np.sum(p_D * np.log(p_D))))
