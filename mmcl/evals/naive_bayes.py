"""Gaussian naive Bayes on frozen features, the generative sister of the logistic probe.

With features x standardised, m_c the mean of class c, s_f² the variance of feature f around the
means of the classes, and p_c the share of class c,

    score(c) = log p_c - sum_f (x_f - m_cf)² / (2 s_f²)

All classes share the variances, so that scores are linear in x, as those of logistic regression
are. In closed form it comes near to its limit with O(log F) examples where logistic regression
takes O(F), though that limit may be lower (P081; Ng and Jordan 2001 for two classes). So which of
the two is ahead depends on how many examples there are: `shots` shows it.

Paper: P081, the naive Bayes probe.

Decided here: no s_f² is below a thousandth of the whole variance of its feature. From one example a
class there is none at all, and the nearest mean is left.
"""

from collections.abc import Sequence

import numpy as np

from mmcl.evals.embedded import Embedded
from mmcl.evals.features import accuracy, class_numbers, fitting_and_judged, largest_class, task
from mmcl.evals.few_shot import named_from_few
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.linear_probe import Linear, logistic, named, standardised
from mmcl.model import Model

LEAST = 1e-3  # variance, where that of a whole feature is 1
L2 = 1e-3  # of the logistic probe beside it


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "group",
    fit: str | None = None,
    before_projection: bool = False,
    shots: Sequence[int] = (),
    draws: int = 5,
    seed: int = 0,
) -> Figures:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split that is judged.
      model: encodes the split that the classifier is fitted to.
      modality: what is classified.
      label: which label is told.
      fit: the split that the classifier is fitted to; None: that which the model was trained on.
      before_projection: read features before the projection to the shared space.
      shots: also fit to so many examples of each class; a class with fewer gives all.
      draws: how often they are drawn.
      seed: of the draws.

    Returns:
      Under `naive_bayes_<label>/` (`naive_bayes_<label>_before/` before the projection): `top1`;
      `mean_per_class`, top-1 averaged over the classes that occur; for each n of `shots`, `top1@n`
      and `logistic_top1@n`, that of a logistic probe of the same examples, the mean of all draws;
      `chance`, top-1 of always naming the class most frequent in `fit`; `count` of items. Items of
      a class that `fit` has none of count as wrong, and so do ties.
    """
    fitting, judged = fitting_and_judged(embedded, model, modality, label, fit, before_projection)
    class_N, class_M, classes = class_numbers(fitting, judged)
    x_NxF, x_MxF = standardised(fitting.x, judged.x)
    name = task("naive_bayes", label, before_projection)
    figures = accuracy(name, named(naive_bayes(x_NxF, class_N, classes), x_MxF, class_M), judged)
    for n in shots:
        for key, probe in [("top1", naive_bayes), ("logistic_top1", _logistic)]:
            share_M = named_from_few(probe, fitting, judged, n, draws, seed)
            figures[f"{name}/{key}@{n}"] = PerItem(share_M, judged.concept)
    return figures | {f"{name}/chance": largest_class(class_N, class_M)}


def naive_bayes(x_NxF: np.ndarray, class_N: np.ndarray, classes: int) -> Linear:
    """Of standardised features; in float64."""
    n_C = np.bincount(class_N, minlength=classes)
    mean_CxF = np.zeros((classes, x_NxF.shape[1]))
    np.add.at(mean_CxF, class_N, x_NxF)
    mean_CxF /= n_C[:, None]
    variance_F = np.maximum(np.square(x_NxF - mean_CxF[class_N]).mean(axis=0), LEAST)
    square_C = (np.square(mean_CxF) / variance_F).sum(axis=1)
    return Linear((mean_CxF / variance_F).T, np.log(n_C / len(x_NxF)) - square_C / 2)


def _logistic(x_NxF: np.ndarray, class_N: np.ndarray, classes: int) -> Linear:
    return logistic(x_NxF, class_N, classes, L2)
