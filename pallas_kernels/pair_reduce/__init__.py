"""Reductions over the grid of all pairs of two batches: the heart of every pairwise objective."""

from pallas_kernels.pair_reduce.api import pair_reduce
from pallas_kernels.pair_reduce.types import At, Reduce

__all__ = ["At", "Reduce", "pair_reduce"]
