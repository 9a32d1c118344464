"""State that a TPU kernel comes back to, block after block, again and again.

A kernel that visits tiles in turn meets a block of the inner side once for each block of the outer
one. Its state either stays in VMEM from the first visit to the last, or comes from HBM before each
visit and goes back after it, while the tiles before and after are computed: one page arrives, one
is computed on, one leaves.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.pair_reduce.stored import Stored

FEWEST = 3  # pages in VMEM, where not all are


class Paging(NamedTuple):
    """Pages of one side's state. Static.

    Attributes:
        leaves: of the state; those of a page come and go together.
        steps: of the kernel; step t is at page t mod `pages`.
        pages: blocks of the side.
        slots: pages that VMEM holds.
    """

    leaves: Sequence[Stored]
    steps: int
    pages: int
    slots: int

    @staticmethod
    def of(leaves: Sequence[Stored], rounds: int, pages: int, room: int) -> "Paging":
        """All pages stay in VMEM if they take at most `room` bytes."""
        size = sum(leaf.page_bytes for leaf in leaves)
        stay = pages < FEWEST or pages * size <= room
        return Paging(leaves, rounds * pages, pages, pages if stay else FEWEST)

    @property
    def stay(self) -> bool:
        return self.slots == self.pages

    @property
    def scratch(self) -> list[Any]:
        """What a kernel that pages needs: the slots of each leaf, and semaphores."""
        waiting = 1 if self.stay else self.slots
        return [
            *(pltpu.VMEM((self.slots, *leaf.page), leaf.kernel_dtype) for leaf in self.leaves),
            pltpu.SemaphoreType.DMA((2, max(1, len(self.leaves)), waiting)),
        ]

    def arrive(self, now: Any, hbm: Sequence[Any], scratch: Sequence[Any]) -> list[Any]:
        """Wait until the page of step `now` is here; returns its leaves.

        Args:
            hbm: a reference (pages, *page) for each leaf.
            scratch: references as `scratch` asked for them.
        """
        page = now % self.pages
        if self.stay:

            @pl.when(now < self.pages)
            def _() -> None:
                for copy in self._copies(page, page, hbm, scratch, out=0):
                    copy.start()
                    copy.wait()

            return [slots.at[page] for slots in scratch[:-1]]
        slot, next_slot = now % self.slots, (now + 1) % self.slots

        @pl.when(now == 0)
        def _() -> None:
            for copy in self._copies(0, 0, hbm, scratch, out=0):
                copy.start()

        @pl.when(now + 1 >= self.slots)
        def _() -> None:  # the page that was in the next slot has left
            for copy in self._copies(0, next_slot, hbm, scratch, out=1):
                copy.wait()

        @pl.when(now + 1 < self.steps)
        def _() -> None:
            for copy in self._copies((now + 1) % self.pages, next_slot, hbm, scratch, out=0):
                copy.start()

        for copy in self._copies(page, slot, hbm, scratch, out=0):
            copy.wait()
        return [slots.at[slot] for slots in scratch[:-1]]

    def leave(self, now: Any, hbm: Sequence[Any], scratch: Sequence[Any]) -> None:
        """Send the page of step `now` home; after the last step, wait for all."""
        page = now % self.pages
        if self.stay:

            @pl.when(now >= self.steps - self.pages)
            def _() -> None:
                for copy in self._copies(page, page, hbm, scratch, out=1):
                    copy.start()
                    copy.wait()

            return
        for copy in self._copies(page, now % self.slots, hbm, scratch, out=1):
            copy.start()

        @pl.when(now == self.steps - 1)
        def _() -> None:
            for back in range(self.slots - 1):
                for copy in self._copies(0, (now - back) % self.slots, hbm, scratch, out=1):
                    copy.wait()

    def _copies(
        self, page: Any, slot: Any, hbm: Sequence[Any], scratch: Sequence[Any], out: int
    ) -> Iterator[Any]:
        """The copies of a page's leaves into a slot, or out of it."""
        *leaves, semaphores = scratch
        for k, (whole, slots) in enumerate(zip(hbm, leaves)):
            ends = whole.at[page], slots.at[slot]
            source, target = ends[::-1] if out else ends
            semaphore = semaphores.at[out, k, 0 if self.stay else slot]
            yield pltpu.make_async_copy(source, target, semaphore)


def when_first(first: Any, old: Sequence[Any], new: Sequence[Any]) -> None:
    """Begin with what was given: copy `old` to `new` where `first` holds."""

    @pl.when(first)
    def _() -> None:
        for a, b in zip(old, new):
            b[...] = a[...]
