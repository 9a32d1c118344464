"""Steps whose numbers are no good: what counts as one, and a step function that leaves them out.

A step is bad where its loss or a gradient is not finite, or where its loss is a spike: above the
mean of the steps before by so many of their standard deviations. Mean and variance are those of the
last hundred good steps, older ones fading out.

Decided here: sums over all processes are judged, so that all of them judge alike; of the stage
before nothing is remembered, for it may have had another loss.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmcl.state import TrainState

Action = Literal["stop", "skip", "rewind"]
Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]

WINDOW = 100  # good steps that the mean and the variance are of
GOOD, NOT_FINITE, SPIKE = 0, 1, 2  # `bad` of a step's metrics
KINDS = {NOT_FINITE: "not_finite", SPIKE: "spike"}


@dataclasses.dataclass(frozen=True)
class Guard:
    """The keys of `config.guard`.

    Attributes:
        not_finite: what is done about a step whose loss or gradient is not finite. "stop": the run
            ends with an error, its last checkpoint from before; "skip": the step changes nothing;
            "rewind": the run goes back to its last checkpoint, and this time without that step.
        spike: the same about a loss that is a spike; None: nothing is.
        deviations: how many standard deviations make a spike.
        limit: bad steps after which a run stops whatever was to be done.
    """

    not_finite: Action = "stop"
    spike: Action | None = None
    deviations: float = 6.0
    limit: int = 100

    def action(self, bad: int) -> Action | None:
        """What is done about a step that is `bad` in this way."""
        return self.not_finite if bad == NOT_FINITE else self.spike

    def init(self) -> dict[str, jax.Array]:
        """What is remembered of the steps before: of none."""
        return {"mean": jnp.float32(0), "variance": jnp.float32(0), "steps": jnp.int32(0)}


def guarded(train_step: Step, guard: Guard) -> Step:
    """A step whose metrics say whether it was `bad`, and which then changes nothing if skipped."""

    def step(
        state: TrainState, batch: Mapping[str, Any]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        new, metrics = train_step(state, batch)
        loss = metrics["loss"].astype(jnp.float32)
        norms = [x for name, x in metrics.items() if name.startswith("grad_norm/")]
        finite = jnp.all(jnp.isfinite(jnp.stack([loss, *norms])))
        memory, spiked = _judged(state.guard, loss, finite, guard)
        bad = jnp.where(finite, jnp.where(spiked, SPIKE, GOOD), NOT_FINITE)
        if "skip" in (guard.not_finite, guard.spike):
            skip = ~finite & (guard.not_finite == "skip") | spiked & (guard.spike == "skip")
            kept = jax.tree.map(lambda old, new: jnp.where(skip, old, new), state, new)
            new = kept._replace(step=new.step)
        return new._replace(guard=memory), {**metrics, "bad": bad}

    return step


def _judged(
    memory: dict[str, jax.Array], loss: jax.Array, finite: jax.Array, guard: Guard
) -> tuple[dict[str, jax.Array], jax.Array]:
    """What is remembered after a step, and whether it was a spike."""
    mean, variance, steps = memory["mean"], memory["variance"], memory["steps"]
    high = loss > mean + guard.deviations * jnp.sqrt(variance)
    spiked = finite & high & (steps >= WINDOW) & (guard.spike is not None)
    good = finite & ~spiked
    share = 1 / (jnp.minimum(steps, WINDOW - 1) + 1).astype(jnp.float32)
    new = {
        "mean": mean + share * (loss - mean),
        "variance": (1 - share) * (variance + share * (loss - mean) ** 2),
        "steps": steps + 1,
    }
    return jax.tree.map(lambda old, new: jnp.where(good, new, old), memory, new), spiked
