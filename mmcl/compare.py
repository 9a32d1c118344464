"""Two experiments beside each other: what each reaches over some seeds, and how far apart they are.

Run i of both has the same seed, hence the same order of data and, where shapes agree, the same
draws: what differs within a pair is what differs between the experiments. The interval is that of
the mean of n paired differences d, with Student's t of n − 1 degrees of freedom:

    mean d ± t(0.975, n − 1) · sd(d) / √n
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from mmcl.metrics_log import is_number

LEVEL = 0.95


class Compared(NamedTuple):
    """One metric. `low` and `high` are NaN for one seed."""

    metric: str
    a_N: list[float]
    b_N: list[float]
    difference: float  # mean of b − a
    low: float
    high: float


def compare(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """Every number that all runs of both end with, in the order of the first.

    Args:
        a, b: the last rows of the runs, seed by seed.
    """
    rows = [*a, *b]
    return [
        paired(name, [row[name] for row in a], [row[name] for row in b])
        for name in a[0]
        if name not in ("step", "time") and all(is_number(row.get(name)) for row in rows)
    ]


def paired(metric: str, a_N: Sequence[float], b_N: Sequence[float]) -> Compared:
    """The mean of the differences, and where it may lie."""
    d_N = np.subtract(b_N, a_N, dtype=np.float64)
    n, mean = len(d_N), float(d_N.mean())
    half = math.nan
    if n > 1:
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * d_N.std(ddof=1) / math.sqrt(n))
    return Compared(metric, list(a_N), list(b_N), mean, mean - half, mean + half)


def varies(one: Compared) -> bool:
    """Whether any two runs differ in it: not so what chance reaches, or how many were asked."""
    return len({*one.a_N, *one.b_N}) > 1
