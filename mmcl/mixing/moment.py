"""What a rule that changes the weights of a mixture on the way may look at."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmcl.state import TrainState


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where training stands when the weights may change.

    Attributes:
        step: steps done in this stage.
        steps: how many the stage has.
        weights: source -> weight, as it is now.
        metrics: of every step since the last call, what was logged or could have been: `loss`, each
            term, `by_source/<term>/<source>`, the mean of a term over that source's records in the
            batch (NaN where there were none), `grad_norm/<tower>`, and so on.
        state: parameters and all else that training remembers, on the devices; not to be changed,
            nor kept, for the next step uses it up.
    """

    step: int
    steps: int
    weights: Mapping[str, float]
    metrics: Sequence[Mapping[str, float]]
    state: TrainState


@dataclasses.dataclass(frozen=True)
class Mixing:
    """A rule `reweigh(moment, state, **options) -> (weights, state)` and how often it is asked.

    It is asked after every so many steps of a stage, and the next batch follows its weights.
    `state` is what it returned the time before, None at first: numbers, strings, lists and dicts,
    which a checkpoint holds as JSON. A rule is a pure function, so a run that was killed goes on
    alike.
    """

    every: int
    reweigh: Callable[[Moment, Any], tuple[Mapping[str, float], Any]]
