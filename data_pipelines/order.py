"""Which record comes when: a pure function of (seed, stage, global position)."""

import dataclasses
import functools

import numpy as np

from data_pipelines.errors import InputError


@dataclasses.dataclass(frozen=True)
class Order:
    """Every epoch visits every record once, each epoch in another order.

    Nothing is remembered: any process can ask for any position, so a run goes on at any step with
    exactly the records not yet seen, whatever the number of processes or workers.

    Raises:
        InputError: there is no record.
    """

    records: int
    seed: int
    stage: int = 0

    def __post_init__(self) -> None:
        if self.records < 1:
            raise InputError("The source has no records: there is nothing to train on.")

    def __call__(self, position: int) -> tuple[int, int]:
        """Global position -> (epoch, record)."""
        epoch, offset = divmod(position, self.records)
        return epoch, permuted(offset, self.records, _keys(self.seed, self.stage, epoch))

    def instead(self, position: int, attempt: int) -> int:
        """A record for a position whose own cannot be used: another one at every attempt."""
        keys = np.random.SeedSequence(self.seed, spawn_key=(self.stage, position, attempt))
        return int(np.random.default_rng(keys).integers(self.records))

    def epochs(self, position: int) -> dict[str, float]:
        """How many times all records stand before a position: {"epoch": 1.5}."""
        return {"epoch": position / self.records}


def permuted(i: int, n: int, keys: tuple[int, ...]) -> int:
    """Where a pseudorandom permutation of 0 ... n-1 sends i, computed for this i alone.

    A Feistel network permutes the numbers of the fewest even number of bits that hold n; what it
    sends to n or above goes through it again (cycle walking: Black and Rogaway 2002, "Ciphers with
    arbitrary finite domains").
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = i >> half, i & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        i = left << half | right
        if i < n:
            return i


def _mixed(x: int) -> int:
    """64 bits, each of which depends on every bit of x (finaliser of SplitMix64)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31


@functools.lru_cache(maxsize=8)
def _keys(seed: int, stage: int, epoch: int) -> tuple[int, ...]:
    """The keys of the eight rounds of an epoch's permutation."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stage, epoch))
    return tuple(sequence.generate_state(8, np.uint64).tolist())
