"""A model as the host uses it: raw values in, embeddings and metrics out."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from data_pipelines.faults import by_kind, too_many
from data_pipelines.pipeline import Pipeline
from mmcl import experiment
from mmcl.evals.embed import embed, encode_values, make_encoders
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, numbers
from mmcl.experiment import Settings
from mmcl.mesh import batch_devices, split_whole_batch
from mmcl.models.towers import Towers
from mmcl.objectives.temperature import logit_scale
from pallas_kernels.pair_reduce import choices


@dataclasses.dataclass(frozen=True)
class Model:
    """Compiled towers, their parameters, and the transforms that feed them.

    Attributes:
        encoders: `towers`, compiled, to unit rows.
        suite: the name of the suite whose splits it embeds; None: they are those of the run.
        modalities: what is embedded where nobody says; None: all that the pipeline reads.
        prefix: how many leading dimensions its embeddings have left; None: all.
        kept: splits that an evaluator has encoded and others may ask for.
    """

    settings: Settings
    pipeline: Pipeline
    towers: Towers
    encoders: Mapping[str, Callable[[Any, Any], jax.Array]]
    params: Mapping[str, Any]
    mesh: Mesh
    suite: str | None = None
    modalities: Sequence[str] | None = None
    prefix: int | None = None
    kept: dict[Any, Embedded] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def batch_size(self) -> int:
        """Records encoded at once: that of the config, rounded up to fill the devices evenly."""
        devices = batch_devices(self.mesh)
        return -(-self.settings.eval.batch_size // devices) * devices

    @property
    def logit_scale(self) -> float | None:
        """The learned multiplier 1/τ of the cosines; None where the objective has none."""
        learned = self.params["objective"]
        if "log_scale" not in learned:
            return None
        largest = getattr(experiment.build_objective(self.settings), "max_scale", None)
        return float(logit_scale(jax.device_get(learned["log_scale"]), largest))

    def encode_batch(self, modality: str, inputs: Mapping[str, Any]) -> np.ndarray:
        """Host arrays of one modality -> z_BxD, float32, rows of unit length."""
        with jax.set_mesh(self.mesh):
            placed = split_whole_batch(dict(inputs), self.mesh)
            z_BxD = self.encoders[modality](self.params[modality], placed)
        return np.array(jax.device_get(z_BxD))

    def encode(self, modality: str, values: Sequence[Any]) -> np.ndarray:
        """Raw values of one modality (strings, pictures) -> z_NxD, rows of unit length."""
        return encode_values(self.encode_batch, self.pipeline, modality, values, self.batch_size)

    def embed(
        self,
        split: str,
        modalities: Sequence[str] | None = None,
        halt: Callable[[], bool] | None = None,
    ) -> Embedded:
        """Every record of a split, encoded by the towers of `modalities` (None: the model's).

        Args:
            halt: asked before each batch whether to leave off.

        Raises:
            Halted: `halt` said so.
            InputError: more records than `config.faults.share` allows cannot be used.
        """
        source = experiment.open_source(self.settings, split)
        embedded = embed(
            self.encode_batch,
            source,
            self.pipeline,
            split=split,
            batch_size=self.batch_size,
            modalities=modalities or self.modalities,
            halt=halt,
        )
        if too_many(len(embedded.rejected), len(source), self.settings.faults.share):
            raise InputError(
                f"{self.told(embedded)} That is more than config.faults.share="
                f"{self.settings.faults.share} allows."
            )
        return embedded

    def judge(self, embedded: Embedded) -> Figures:
        """What `config.eval.evaluators` say of an embedded split: `eval/<split>/<task>/<metric>`;
        of a suite's, `eval/<suite>-<split>/<task>/<metric>`; of the leading M dimensions alone, for
        each of `config.eval.prefixes`, `eval/<split>/prefix_M/<task>/<metric>`.

        Of several processes all ask. What the pair engine chooses here is not among the choices
        that a run keeps: no training depends on it.
        """
        found: Figures = {}
        evaluators = experiment.build_evaluators(self.settings)
        with jax.set_mesh(self.mesh), choices():
            for evaluate in evaluators:
                found |= evaluate(embedded, self)
            for prefix in self.settings.eval.prefixes:
                short, model = embedded.short(prefix), self.short(prefix)
                for evaluate in evaluators:
                    figures = evaluate(short, model)
                    found |= {f"prefix_{prefix}/{name}": one for name, one in figures.items()}
        kinds = Counter(one.kind for one in embedded.rejected)
        found |= {f"rejected/{kind}": n for kind, n in kinds.items()}
        return {f"eval/{self.called(embedded)}/{name}": figure for name, figure in found.items()}

    def short(self, prefix: int) -> "Model":
        """The same of which only the leading dimensions of every embedding are left."""
        encoders = make_encoders(self.towers, self.mesh, prefix)
        return dataclasses.replace(self, encoders=encoders, prefix=prefix)

    def evaluate(self, embedded: Embedded) -> dict[str, float]:
        """The same as plain numbers."""
        return numbers(self.judge(embedded))

    def called(self, embedded: Embedded) -> str:
        """The name of a split: its own, and that of the suite before it."""
        return embedded.split if self.suite is None else f"{self.suite}-{embedded.split}"

    def told(self, embedded: Embedded) -> str:
        """How many records of a split could not be used, and what is wrong with one of them."""
        kinds = by_kind(Counter(one.kind for one in embedded.rejected))
        last = embedded.rejected[-1]
        return (
            f"'{self.called(embedded)}' is judged without {len(embedded.rejected)} of its records, "
            f"which could not be used: {kinds}; the last: {last.id or last.index}, {last.reason}."
        )
