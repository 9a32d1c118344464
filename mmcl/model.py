"""A model as the host uses it: raw values in, embeddings and metrics out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.evals.embed import embed, encode_values, run_evaluators
from mmcl.evals.embedded import Embedded
from mmcl.experiment import Settings
from mmcl.mesh import split_batch


@dataclasses.dataclass(frozen=True)
class Model:
    """Compiled towers, their parameters, and the transforms that feed them."""

    settings: Settings
    pipeline: Pipeline
    encoders: Mapping[str, Callable[[Any, Any], jax.Array]]
    params: Mapping[str, Any]
    mesh: Mesh

    @property
    def batch_size(self) -> int:
        """Records encoded at once: that of the config, rounded up to fill the devices evenly."""
        return -(-self.settings.eval.batch_size // self.mesh.size) * self.mesh.size

    def encode_batch(self, modality: str, inputs: Mapping[str, Any]) -> np.ndarray:
        """Host arrays of one modality -> z_BxD, float32, rows of unit length."""
        placed = split_batch(inputs, self.mesh)
        z_BxD = self.encoders[modality](self.params[modality], placed)
        return np.array(jax.device_get(z_BxD))

    def encode(self, modality: str, values: Sequence[Any]) -> np.ndarray:
        """Raw values of one modality (strings, pictures) -> z_NxD, rows of unit length."""
        return encode_values(self.encode_batch, self.pipeline, modality, values, self.batch_size)

    def embed(self, split: str, modalities: Sequence[str] | None = None) -> Embedded:
        """Every record of a split, encoded by the towers of `modalities` (None: all)."""
        return embed(
            self.encode_batch,
            experiment.open_source(self.settings, split),
            self.pipeline,
            split=split,
            batch_size=self.batch_size,
            modalities=modalities,
        )

    def evaluate(self, embedded: Embedded) -> dict[str, float]:
        """What `config.eval.evaluators` say of an embedded split."""
        return run_evaluators(experiment.build_evaluators(self.settings), embedded, self.encode)
