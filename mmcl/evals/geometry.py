"""The shape of the embedding space: modality gap, alignment, uniformity.

    gap(a, b)       = || mean_i a_i - mean_i b_i ||
    alignment(a, b) = mean_i || a_i - b_i ||^2
    uniformity(a)   = log mean_{i != j} exp(-2 || a_i - a_j ||^2)

The gap is that of Liang et al. 2022 (arXiv 2203.02053), alignment and uniformity are those of Wang
and Isola 2020 (arXiv 2005.10242); P003 relates the three across modalities. Smaller is better for
each. Gap and alignment are taken over records, so that both modalities weigh a pair alike;
uniformity over distinct items, because a caption that many records share is one point.
"""

import itertools

import numpy as np

from mmcl.evals.embedded import Embedded
from mmcl.evals.retrieval import items, unit_rows

BLOCK = 256  # rows of the pairwise matrix that exist at a time
MOST = 8192  # items whose pairs are all counted


def evaluate(embedded: Embedded, encode: object, *, label: str = "concept") -> dict[str, float]:
    """`geometry/<a>_<b>/gap` and `/alignment` of every two modalities, `geometry/<a>/uniformity`.

    Args:
      embedded: the split.
      encode: not needed, nothing new is encoded.
      label: with the string itself, what makes two records one item of a modality.

    Returns:
      Gap in [0, 2], alignment in [0, 4], uniformity in [-8, 0]. Uniformity counts all pairs of up
      to 8,192 items, of more items those of a fixed random choice of 8,192; a modality with one
      item has none.
    """
    z = {modality: unit_rows(rows, modality) for modality, rows in embedded.z.items()}
    metrics = {}
    for a, b in itertools.combinations(z, 2):
        gap_D = z[a].mean(axis=0) - z[b].mean(axis=0)
        metrics[f"geometry/{a}_{b}/gap"] = float(np.linalg.norm(gap_D))
        metrics[f"geometry/{a}_{b}/alignment"] = float(np.square(z[a] - z[b]).sum(axis=1).mean())
    for modality, rows in z.items():
        distinct = items(embedded, modality, label)
        if len(distinct) > MOST:
            distinct = np.random.default_rng(0).choice(distinct, MOST, replace=False)
        if len(distinct) > 1:
            metrics[f"geometry/{modality}/uniformity"] = uniformity(rows[distinct])
    return metrics


def uniformity(z_NxD: np.ndarray) -> float:
    """log mean exp(-2 d^2) over all pairs of different rows; d^2 = 2 - 2 cos for unit rows."""
    n, total = len(z_NxD), 0.0
    for start in range(0, n, BLOCK):
        cosine_BxN = z_NxD[start : start + BLOCK] @ z_NxD.T
        row = np.arange(len(cosine_BxN))
        cosine_BxN[row, start + row] = -np.inf  # not a pair
        total += np.exp(4 * cosine_BxN - 4).sum()
    return float(np.log(total / (n * (n - 1))))
