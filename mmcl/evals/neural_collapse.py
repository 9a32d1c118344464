"""How far classes have collapsed to points, and the points to a simplex.

Of class means m_c, their mean m, u_c = m_c - m, and the scatter within and between C classes

    S_W = mean_c mean_{i of c} (z_i - m_c)(z_i - m_c)^T        S_B = mean_c u_c u_c^T

    nc1             = tr(S_W pinv(S_B)) / C
    nc1_traces      = tr S_W / tr S_B
    nc2_norms       = std_c || u_c || / mean_c || u_c ||
    nc2_angles      = mean_{c != d} | cos(u_c, u_d) + 1 / (C - 1) |
    nc4             = share of items that lie nearest to the mean of their own class

The first four are 0 where every class is one point and the points are a simplex equiangular tight
frame. Source: Papyan, Han and Donoho 2020 (arXiv 2008.08186); P209 asks for them.

Decided here: classes weigh alike, however many items they have; nc4 asks for the label, for there
is no classifier to agree with (which is also why there is no nc3). A class of one item would be a
point by necessity, so only those of two or more are looked at. An item has a part in the mean that
it is compared with: nc4 describes what is there, and is no accuracy on new items.
"""

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import items

ROUNDING = 1e-6  # of unit rows in float32
ROWS = 1024  # of the grid of classes, at once


def evaluate(embedded: Embedded, model: object, *, label: str = "group") -> Figures:
    """Under `neural_collapse_<label>/<modality>/`: the five above, of the distinct items.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      label: what says which items are of one class.

    Returns:
      Also `chance`, 1 / classes, the nc4 of a uniform guess, and the numbers of `classes` and of
      items (`count`). A modality with fewer than two classes of two items has none of them, one of
      which all class means coincide of the five only nc4.

    Raises:
      InputError: no modality has two classes of two items.
    """
    figures: Figures = {}
    for modality, rows in embedded.z.items():
        record = items(embedded, modality, label)
        value_C, of_C = np.unique(embedded.labels[label][record], return_counts=True)
        record = record[np.isin(embedded.labels[label][record], value_C[of_C > 1])]
        value_C, class_N = np.unique(embedded.labels[label][record], return_inverse=True)
        classes = len(value_C)
        if classes < 2:
            continue
        z_NxD = check_unit(rows[record], modality).astype(np.float64)
        mean_CxD = class_means(z_NxD, class_N)
        hit_N = ranks(*_distances(z_NxD, mean_CxD), class_N, np.arange(classes)) == 1
        found: Figures = {"nc4": PerItem(hit_N, embedded.labels["concept"][record])}
        found |= collapse(z_NxD, mean_CxD, class_N)
        found |= {"chance": 1 / classes, "classes": float(classes), "count": float(len(record))}
        name = f"neural_collapse_{label}/{modality}"
        figures |= {f"{name}/{metric}": figure for metric, figure in found.items()}
    if not figures:
        raise InputError(
            f"no modality of '{embedded.split}' has two classes of two items or more by the label "
            f"'{label}': name a label that more items share"
        )
    return figures


def class_means(z_NxD: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """Of each of the classes 0, 1, ...: (C, D)."""
    of_C = np.bincount(class_N)
    sum_CxD = np.zeros((len(of_C), z_NxD.shape[1]))
    np.add.at(sum_CxD, class_N, z_NxD)
    return sum_CxD / of_C[:, None]


def collapse(z_NxD: np.ndarray, mean_CxD: np.ndarray, class_N: np.ndarray) -> dict[str, float]:
    """Both of nc1 and of nc2; nothing where all means are one.

    With U = P s Q^T of rank r, the matrix of the u_c, pinv(S_B) = C Q s^-2 Q^T: nc1 is the scatter
    within along each of the r directions in Q, over s^2.
    """
    classes = len(mean_CxD)
    u_CxD = mean_CxD - mean_CxD.mean(axis=0)
    _, s_R, q_RxD = np.linalg.svd(u_CxD, full_matrices=False)
    real_R = s_R > ROUNDING * np.sqrt(classes)
    if not real_R.any():
        return {}
    weight_N = 1 / (classes * np.bincount(class_N)[class_N])
    within_NxD = z_NxD - mean_CxD[class_N]
    along_R = weight_N @ np.square(within_NxD @ q_RxD[real_R].T)
    norm_C = np.linalg.norm(u_CxD, axis=1)
    within = weight_N @ np.square(within_NxD).sum(axis=1)
    return {
        "nc1": float(np.sum(along_R / np.square(s_R[real_R]))),
        "nc1_traces": float(within / np.mean(np.square(norm_C))),
        "nc2_norms": float(norm_C.std() / norm_C.mean()),
        "nc2_angles": angles(u_CxD),
    }


def angles(u_CxD: np.ndarray) -> float:
    """Mean |cos + 1 / (C - 1)| of two classes; a mean that lies in the middle has cosine 0."""
    classes = len(u_CxD)
    norm_C = np.linalg.norm(u_CxD, axis=1)
    unit_CxD = u_CxD / np.where(norm_C > ROUNDING, norm_C, np.inf)[:, None]
    total = 0.0
    for start in range(0, classes, ROWS):
        cos_RxC = unit_CxD[start : start + ROWS] @ unit_CxD.T
        apart_RxC = np.abs(cos_RxC + 1 / (classes - 1))
        own_R = np.arange(len(cos_RxC))
        apart_RxC[own_R, start + own_R] = 0
        total += apart_RxC.sum()
    return float(total / (classes * (classes - 1)))


def _distances(z_NxD: np.ndarray, mean_CxD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose product is z·m - |m|^2 / 2, which is largest for the nearest mean."""
    half_C = np.square(mean_CxD).sum(axis=1) / 2
    ones_N = np.ones((len(z_NxD), 1))
    return np.hstack([z_NxD, ones_N]), np.hstack([mean_CxD, -half_C[:, None]])
