"""Which record comes when: a pure function of (seed, stage, global position)."""

import dataclasses
import functools

import grain
import numpy as np


@dataclasses.dataclass(frozen=True)
class Order:
    """Every epoch visits every record once, each epoch in another order.

    Nothing is remembered: any process can ask for any position, so a run goes on at any step with
    exactly the records not yet seen, whatever the number of processes or workers.
    """

    records: int
    seed: int
    stage: int = 0

    def __call__(self, position: int) -> tuple[int, int]:
        """Global position -> (epoch, record)."""
        epoch, offset = divmod(position, self.records)
        return epoch, int(_permutation(self.records, self.seed, self.stage, epoch)[offset])


@functools.lru_cache(maxsize=8)
def _permutation(records: int, seed: int, stage: int, epoch: int) -> grain.MapDataset:
    """A shuffle that is computed index by index: no array of all records is ever made."""
    state = np.random.SeedSequence([seed, stage, epoch]).generate_state(1)
    return grain.MapDataset.range(records).shuffle(seed=int(state[0]))
