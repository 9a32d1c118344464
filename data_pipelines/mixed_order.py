"""Which record comes when, where several sources are mixed by weights that may change."""

import dataclasses
import functools
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.order import Order

SPAN = 2**32
GOLDEN = 0x9E3779B9  # odd, and 2**32 over the golden ratio: its multiples are spread most evenly


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a mixture remembers: all that its order is a function of, beside seed and stage.

    Attributes:
        of: how often each source stands in the order, relative to the others.
        start: the global position from which on that holds.
        before: how many earlier positions each source had.
    """

    of: Mapping[str, float]
    start: int = 0
    before: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it: `Weights(**plain)` is the same again."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class MixedOrder:
    """Each source runs through epochs of its own `Order`, and weights say how often it stands.

    Which source stands at position p is read off a Weyl sequence, (GOLDEN · p + shift) mod 2**32,
    on which every source has an interval as long as its weight: any stretch of n positions holds
    within two or three of n · weight records of it. How many earlier positions were its own is
    found in O(log p) steps, so this too is a pure function of the position.

    Attributes:
        records: how many each source has. Records are numbered through, source after source.
        weights: those that hold from `weights.start` on; earlier positions cannot be asked for.

    Raises:
        InputError: a source has no records, or the weights are not one number for each.
    """

    records: Mapping[str, int]
    seed: int
    stage: int
    weights: Weights

    def __post_init__(self) -> None:
        check_weights(self.weights.of, self.records)
        for name, count in self.records.items():
            if count < 1:
                raise InputError(f"The source '{name}' of the mixture has no records.")

    def __call__(self, position: int) -> tuple[int, int]:
        """Global position -> (epoch of its source, record)."""
        name = self.source_at(position)
        epoch, record = self._orders[name](self._count(name, position))
        return epoch, self._first[name] + record

    def source_at(self, position: int) -> str:
        """The source that stands at a global position."""
        if position < self.weights.start:
            raise ValueError(f"these weights begin at {self.weights.start}, after {position}")
        at = bisect_right(self._ends, (GOLDEN * position + self._shift) % SPAN)
        return list(self.records)[at]

    def instead(self, position: int, attempt: int) -> int:
        """A record of the same source for a position whose own cannot be used."""
        name = self.source_at(position)
        return self._first[name] + self._orders[name].instead(position, attempt)

    def counts(self, position: int) -> dict[str, int]:
        """How many positions before this one each source has."""
        return {name: self._count(name, position) for name in self.records}

    def epochs(self, position: int) -> dict[str, float]:
        """How many times each source's records stand before a position: {"epoch/a": 1.5, ...}."""
        return {
            f"epoch/{name}": n / self.records[name] for name, n in self.counts(position).items()
        }

    def reweighted(self, position: int, of: Mapping[str, float]) -> "MixedOrder":
        """This order up to `position`; other weights from there on."""
        weights = Weights(of, position, self.counts(position))
        return dataclasses.replace(self, weights=weights)

    def _count(self, name: str, position: int) -> int:
        since = self._hits(name, position) - self._hits(name, self.weights.start)
        return self.weights.before.get(name, 0) + since

    def _hits(self, name: str, position: int) -> int:
        """How many p < position have their point of the Weyl sequence in a source's interval.

        x mod m < c where ⌊x/m⌋ − ⌊(x−c)/m⌋ is 1, and else that is 0.
        """
        at = list(self.records).index(name)
        low, high = (0, *self._ends)[at], self._ends[at]

        def floors(c: int) -> int:
            return floor_sum(position, SPAN, GOLDEN, self._shift - c)

        return floors(low) - floors(high)

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        """Where the intervals of the sources end, in their order; the last at 2**32."""
        sums = list(accumulate(self.weights.of[name] for name in self.records))
        return tuple(round(weight / sums[-1] * SPAN) for weight in sums)

    @functools.cached_property
    def _shift(self) -> int:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.stage,))
        return int(sequence.generate_state(1)[0])

    @functools.cached_property
    def _first(self) -> dict[str, int]:
        """The number of each source's first record."""
        return dict(zip(self.records, accumulate(self.records.values(), initial=0)))

    @functools.cached_property
    def _orders(self) -> dict[str, Order]:
        """Keyed by name, so that another source beside it changes no source's order."""
        return {
            name: Order(count, self.seed << 32 | zlib.crc32(name.encode()), self.stage)
            for name, count in self.records.items()
        }


def check_weights(weights: Mapping[str, float], sources: Mapping[str, Any]) -> None:
    """Weights are finite numbers of 0 or more, one for each source, and not all 0.

    Raises:
        InputError: they are not.
    """
    if set(weights) != set(sources):
        raise InputError(
            f"There are weights for {sorted(weights)}, but the sources of the mixture are "
            f"{sorted(sources)}; give each one."
        )
    if not all(0 <= weight < float("inf") for weight in weights.values()) or not any(
        weights.values()
    ):
        raise InputError(
            f"The weights {dict(weights)} should be 0 or more each, and not all of them 0."
        )


def floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Σ ⌊(a · i + b) / m⌋ over i = 0 ... n-1, in as few steps as Euclid's algorithm for a and m.

    Graham, Knuth and Patashnik 1994, "Concrete Mathematics", section 3.5: the sum counts lattice
    points under a line, and so does the same sum with the axes exchanged.
    """
    total = 0
    while n:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        n, b, m, a = top // m, top % m, a, m
    return total
