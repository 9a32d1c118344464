"""A second set of the towers' parameters that no gradient reaches: what a model learns from.

It is either the towers as they were when a stage began, which keeps what an earlier stage has
learnt (the frozen old model of Mod-X, P071), or an average that follows the towers (the momentum
model of MoCo and ALBEF, P017; Tarvainen and Valpola 2017, mean teacher). An objective finds what it
makes of a batch, without what is random in training, where vectors from a file would be, too:

    batch["teacher"][modality], (B, D), of any length
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mmcl.micro_batches import joined, one_by_one
from mmcl.models.towers import Towers
from mmcl.state import TrainState

NAME = "teacher"  # of its entry in a batch


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The keys of `config.teacher`.

    Attributes:
        ema: decay of the average of the towers that it is; None: the towers as they were when the
            stage began.
    """

    ema: float | None = None


def taught(
    towers: Towers, state: TrainState, batch: Mapping[str, Any], micro_batches: int = 1
) -> dict[str, Any]:
    """The batch with what the state's teacher makes of it; as it is, where there is none."""
    params = state.teacher
    if params is None:
        return dict(batch)

    def encode(inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        found = towers.encode_all(params, inputs, train=False)
        return {modality: embedding.z for modality, embedding in found.items()}

    inputs = {modality: batch[modality] for modality in towers.modules}
    if micro_batches == 1:
        return {**batch, NAME: encode(inputs)}
    return {**batch, NAME: joined(one_by_one(encode, inputs, micro_batches))}


def of_towers(towers: Towers, params: Mapping[str, Any]) -> dict[str, Any]:
    """Of all parameters those that a teacher has."""
    return {modality: params[modality] for modality in towers.modules}
