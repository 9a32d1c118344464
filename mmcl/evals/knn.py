"""k nearest neighbours: the labels of the most alike items of another split name each item.

    score(c) = sum over the k nearest j with y_j = c of exp(cos(x, x_j) / temperature)

The weighted vote of Wu et al. 2018 (arXiv 1805.01978), with their temperature. Nothing is fitted,
so that it tells of the features' own neighbourhoods. Decided here: before the projection, features
are scaled to unit length and nothing else.
"""

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals import pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.features import (
    accuracy,
    class_numbers,
    fitting_and_judged,
    is_right,
    largest_class,
    task,
)
from mmcl.evals.figure import Figures
from mmcl.model import Model

ROWS = 1024  # of votes that are in memory at once


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "group",
    fit: str | None = None,
    before_projection: bool = False,
    k: int = 20,
    temperature: float = 0.07,
) -> Figures:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split that is judged.
      model: encodes the split that neighbours are of.
      modality: what is classified, by items of the same.
      label: which label is told.
      fit: the split that neighbours are of; None: that which the model was trained on.
      before_projection: read features before the projection to the shared space.
      k: neighbours that vote; all, where there are fewer.
      temperature: the smaller, the less those farther away count.

    Returns:
      Under `knn_<label>/` (`knn_<label>_before/` before the projection): `top1`; `mean_per_class`,
      top-1 averaged over the classes that occur; `chance`, top-1 of always naming the class most
      frequent in `fit`; `count` of items. Items of a class that `fit` has none of count as wrong,
      and so do ties.
    """
    if k < 1 or temperature <= 0:
        raise InputError(f"k={k}, temperature={temperature}: k should be 1 or more, both above 0")
    fitting, judged = fitting_and_judged(embedded, model, modality, label, fit, before_projection)
    class_N, class_M, classes = class_numbers(fitting, judged)
    nearest_Mxk, cosine_Mxk = pairs.nearest(unit(judged.x), unit(fitting.x), k)
    right_M = np.concatenate(
        [
            is_right(
                votes(class_N[nearest_Mxk[rows]], cosine_Mxk[rows], classes, temperature),
                class_M[rows],
            )
            for rows in (slice(i, i + ROWS) for i in range(0, len(class_M), ROWS))
        ]
    )
    name = task("knn", label, before_projection)
    chance = {f"{name}/chance": largest_class(class_N, class_M)}
    return accuracy(name, right_M, judged) | chance


def votes(
    class_Mxk: np.ndarray, cosine_Mxk: np.ndarray, classes: int, temperature: float
) -> np.ndarray:
    """For each class: (M, classes) float64, where the nearest neighbour's vote is 1.

    Cosines that rounding may have parted (`pairs.TIE`) are taken for equal.
    """
    cosine_Mxk = np.round(cosine_Mxk.astype(np.float64) / pairs.TIE) * pairs.TIE
    weight_Mxk = np.exp((cosine_Mxk - cosine_Mxk[:, :1]) / temperature)
    bin_Mxk = np.arange(len(class_Mxk))[:, None] * classes + class_Mxk
    score = np.bincount(bin_Mxk.ravel(), weight_Mxk.ravel(), len(class_Mxk) * classes)
    return score.reshape(-1, classes)


def unit(x_NxF: np.ndarray) -> np.ndarray:
    """Rows of unit length; zeros stay."""
    length_N = np.linalg.norm(x_NxF, axis=-1, keepdims=True)
    return x_NxF / np.where(length_N > 0, length_N, 1)
