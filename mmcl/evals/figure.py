"""What an evaluator says: plain numbers, and figures that sum up one value an item.

Of the latter it is also known how far they would have moved had other items been drawn: the
percentile bootstrap (Efron 1979) draws the items again, with replacement. Items of one cluster (the
five captions of a picture, the pictures of one concept) come and go together, for they are no
independent witnesses.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

DRAWS = 1000
LEVEL = 0.95


class PerItem(NamedTuple):
    """The mean of items' values, or their median.

    Attributes:
        value_N: what each item came to.
        cluster_N: equal integers for items that are drawn together; None: each by itself.
        weight_N: of each item in the mean; None: all alike.
        median: the median is meant, which has no weights.
    """

    value_N: np.ndarray
    cluster_N: np.ndarray | None = None
    weight_N: np.ndarray | None = None
    median: bool = False


Figures = dict[str, float | PerItem]


def number(figure: float | PerItem) -> float:
    """What is shown of a figure; NaN where there are no items."""
    if not isinstance(figure, PerItem):
        return float(figure)
    if not len(figure.value_N):
        return float("nan")
    if figure.median:
        return float(np.median(figure.value_N))
    return float(np.average(figure.value_N, weights=figure.weight_N))


def numbers(figures: Mapping[str, float | PerItem]) -> dict[str, float]:
    """The same of all."""
    return {name: number(figure) for name, figure in figures.items()}


def intervals(figures: Mapping[str, float | PerItem]) -> dict[str, tuple[float, float]]:
    """Between what two numbers each figure lies in 95 % of draws; of those with items only.

    The draws are always the same, so that figures of the same items move together.
    """
    found = {}
    for name, figure in figures.items():
        if isinstance(figure, PerItem) and len(figure.value_N):
            drawn_R = redrawn(figure)
            tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
            low, high = np.nanpercentile(drawn_R, tails)
            found[name] = (float(low), float(high))
    return found


def redrawn(figure: PerItem, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """The figure of so many draws of the clusters: (draws,) float64."""
    value_N = np.asarray(figure.value_N, np.float64)
    n = len(value_N)
    cluster_N = np.arange(n) if figure.cluster_N is None else figure.cluster_N
    _, cluster_N = np.unique(cluster_N, return_inverse=True)
    clusters = int(cluster_N.max()) + 1
    rng = np.random.default_rng(seed)
    if figure.median:
        order = np.argsort(value_N, kind="stable")
        value_N, cluster_N = value_N[order], cluster_N[order]
    weight_N = np.ones(n) if figure.weight_N is None else figure.weight_N
    weight_C = np.bincount(cluster_N, weights=weight_N)
    sum_C = np.bincount(cluster_N, weights=weight_N * value_N)
    drawn_R = np.empty(draws)
    for r in range(draws):
        times_C = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        if figure.median:
            drawn_R[r] = _median(value_N, times_C[cluster_N])
        else:
            drawn_R[r] = times_C @ sum_C / (times_C @ weight_C)
    return drawn_R


def _median(sorted_N: np.ndarray, times_N: np.ndarray) -> float:
    """Of values that each occur so many times."""
    upto_N = np.cumsum(times_N)
    n = int(upto_N[-1])
    middle = np.searchsorted(upto_N, [(n - 1) // 2, n // 2], side="right")
    return float(sorted_N[middle].mean())
