"""What a stage is fed with: its batches, in an order whose weights may change on the way."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from data_pipelines.loader import numeric
from data_pipelines.mixed_order import MixedOrder, Weights
from mmcl.built_stage import BuiltStage
from mmcl.mesh import split_batch
from mmcl.mixing.moment import Moment
from mmcl.rejected_log import RejectedLog
from mmcl.state import TrainState
from mmcl.step import Metrics


class Feed:
    """The batches of a stage from step `done` on, placed on the devices.

    What it remembers (`remembered`) is all that the rest of its batches depend on.

    Args:
        before: what it had remembered, if the stage was stopped at `done`.
        rejected: is told of the records that a step goes without.
    """

    def __init__(
        self,
        built: BuiltStage,
        done: int,
        before: Mapping[str, Any],
        rejected: RejectedLog | None = None,
    ):
        self._built, self._done, self._rejected = built, done, rejected
        weights = before.get("weights")
        self._order = built.order(Weights(**weights) if weights else None)
        self._rule_state = before.get("rule_state")
        self._metrics: list[Mapping[str, Any]] = list(before.get("metrics", ()))
        self._batches: Any = built.batches(done, self._order)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._done < self._built.stage.stop:
            batch = next(self._batches)
            if self._rejected is not None:
                self._rejected.add(self._done + 1, batch["rejected"])
            yield split_batch(numeric(batch), self._built.mesh)

    def stepped(self, metrics: Metrics, state: TrainState) -> None:
        """A step was made with the last batch; where it is time, the mixture gets other weights."""
        self._done += 1
        mixing, order = self._built.mixing, self._order
        if mixing is None or not isinstance(order, MixedOrder):
            return
        self._metrics.append(metrics)
        step = self._done - self._built.stage.start
        if step % mixing.every:
            return
        weights = dict(order.weights.of)
        steps, rows = self._built.stage.settings.steps, self._plain_metrics()
        moment = Moment(step, steps, weights, rows, state)
        new, self._rule_state = mixing.reweigh(moment, self._rule_state)
        self._metrics = []
        if dict(new) != weights:
            self._order = order.reweighted(self._position, dict(new))
            self._batches.close()  # what was read ahead has the old weights
            self._batches = self._built.batches(self._done, self._order)

    def row(self) -> dict[str, float]:
        """What metrics.jsonl is told: epochs of the stage so far, and the next batch's weights."""
        row = self._order.epochs(self._position)
        if isinstance(self._order, MixedOrder):
            row |= {f"weight/{name}": weight for name, weight in self._order.weights.of.items()}
        return row

    def remembered(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON; nothing where the order is a function of the step."""
        if not isinstance(self._order, MixedOrder):
            return {}
        kept: dict[str, Any] = {"weights": self._order.weights.plain()}
        if self._built.mixing is not None:
            kept |= {"rule_state": self._rule_state, "metrics": self._plain_metrics()}
        return kept

    @property
    def _position(self) -> int:
        """How many examples of this stage all processes have been fed with."""
        stage = self._built.stage
        return (self._done - stage.start) * stage.settings.batch_size

    def _plain_metrics(self) -> list[Mapping[str, float]]:
        rows = jax.device_get(self._metrics)
        self._metrics = [{name: float(x) for name, x in row.items()} for row in rows]
        return list(self._metrics)
