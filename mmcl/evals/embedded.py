"""What evaluators and the report read: one split of the data, encoded by a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.faults import Reject
from mmcl.evals.pairs import unit_or_zero


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Every record of one split that can be used, encoded.

    `labels["concept"]` says which records are right answers of each other; where the source has no
    such label, each is the only right answer of itself. Records that show an
    equal string in a modality (many pictures share one caption) are one item of that modality.
    """

    split: str
    z: dict[str, np.ndarray]  # modality -> z_NxD, float32, rows of unit length
    labels: dict[str, np.ndarray]  # label -> (N,) int32
    shown: dict[str, Sequence[Any]]  # modality -> N strings, or uint8 (H, W, 3) each
    ids: list[str]
    label_names: dict[str, list[str]]  # label -> the name of each value
    rejected: Sequence[Reject] = ()  # records of the split that could not be used: not in the above
    present: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # see `has`

    def has(self, modality: str) -> np.ndarray:
        """Which records have a modality: (N,) bool, as `present` says where some lack it. Their `z`
        says nothing.
        """
        return self.present.get(modality, np.ones(len(self.ids), bool))

    def short(self, prefix: int) -> "Embedded":
        """The same of which only the leading dimensions of every embedding are left."""
        z = {m: unit_or_zero(z_NxD[:, :prefix]) for m, z_NxD in self.z.items()}
        return dataclasses.replace(self, z=z)
