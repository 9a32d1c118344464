"""What an objective is, and what it returns."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding


class Term(NamedTuple):
    """One part of a loss, example by example; the trainer takes the global weighted mean.

    An objective whose gradient was made in the forward pass (`pair_sum`) gives `total`, and the
    gradient comes from there: `value_B` is then for reading.
    """

    value_B: jax.Array
    weight_B: jax.Array  # 0 where the example has no part in this term
    total: jax.Array | None = None  # (), Σ weight · value, where it is known as a whole

    def mean(self) -> jax.Array:
        """Σ weight · value / Σ weight; 0 where no example counts."""
        weights = jnp.sum(self.weight_B)
        total = self.total
        if total is None:
            total = jnp.sum(jnp.where(self.weight_B > 0, self.weight_B * self.value_B, 0.0))
        return total / jnp.where(weights > 0, weights, 1.0)


class Result(NamedTuple):
    """`terms` are summed to the loss; `state` goes to the next step; `metrics` are logged."""

    terms: dict[str, Term]
    state: Any
    metrics: dict[str, jax.Array]


class Objective(Protocol):
    """A frozen dataclass of options with three pure methods.

    One that compares tokens says `reads_tokens: ClassVar[bool] = True`. Where a batch is encoded in
    micro-batches (`config.micro_batches`), it is asked about each of them by itself: then only
    records of one micro-batch meet. All others get the pooled embeddings of the whole batch.
    """

    def init(self, key: jax.Array) -> dict[str, Any]:
        """The parameters it learns: temperature, bias, prototypes, ..."""

    def init_state(self, key: jax.Array) -> Any:
        """What it remembers from step to step without a gradient; None for nothing."""

    def __call__(
        self,
        params: dict[str, Any],
        state: Any,
        embeddings: Mapping[str, Embedding],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> Result:
        """The terms of the loss of one global batch.

        Args:
            key: for random choices of the batch; those of a record take `batch[modality]["key"]`
                (B,), which neither devices nor micro-batches change.
        """


def reads_tokens(objective: Objective) -> bool:
    """Whether pooled embeddings are not enough for it."""
    return getattr(objective, "reads_tokens", False)
