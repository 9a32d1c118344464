"""Reductions over the grid of all pairs of two batches: the heart of every pairwise objective."""

from pallas_kernels.pair_reduce.api import pair_reduce, pair_sum
from pallas_kernels.pair_reduce.choices import choices
from pallas_kernels.pair_reduce.take import take
from pallas_kernels.pair_reduce.types import At, Reduce, Sample, SoftmaxMean, TopK, Winners

__all__ = [
    "At",
    "Reduce",
    "Sample",
    "SoftmaxMean",
    "TopK",
    "Winners",
    "choices",
    "pair_reduce",
    "pair_sum",
    "take",
]
