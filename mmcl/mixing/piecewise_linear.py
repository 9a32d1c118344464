"""Weights that follow a plan: straight lines between given points, whatever the model does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from mmcl.mixing.moment import Moment


def reweigh(
    moment: Moment,
    state: dict[str, float] | None,
    *,
    at: Sequence[int],
    weights: Sequence[dict[str, float]],
) -> tuple[Mapping[str, float], Any]:
    """From the weights that the stage began with to `weights[0]` at step `at[0]` of the stage, on
    to `weights[1]` at `at[1]`, and so on; the last stay.

    Weights are scaled to a sum of 1 at every point, so that what moves in straight lines are the
    sources' shares of a batch.

    Raises:
        InputError: steps do not rise from above 0, or weights are missing for a step or a source.
    """
    began = dict(moment.weights) if state is None else state
    if len(at) != len(weights) or not at or any(a >= b for a, b in zip([0, *at], at)):
        raise InputError(
            f"config.mixing: at={list(at)} should be rising steps above 0, each with weights."
        )
    for point in weights:
        if set(point) != set(began):
            raise InputError(
                f"config.mixing.weights: {sorted(point)} should be the sources {sorted(began)}."
            )
    shares = [_shares(point) for point in (began, *weights)]
    new = {
        name: float(np.interp(moment.step, [0, *at], [point[name] for point in shares]))
        for name in began
    }
    return new, began


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if total <= 0:
        raise InputError(f"config.mixing.weights: {dict(weights)} should not all be 0.")
    return {name: weight / total for name, weight in weights.items()}
