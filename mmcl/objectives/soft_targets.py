"""Symmetric softmax against a teacher's similarities: no other record is wholly wrong.

    value_i = ½ [ lse_j s_ij − Σ_j y_ij s_ij ] + ½ [ lse_j s_ji − Σ_j y'_ij s_ji ]
    y_ij = mix · softmax_j(teacher_scale · cos(ta_i, tb_j)) + (1 − mix) · [i = j]
    y'_ij the same with softmax_j(teacher_scale · cos(ta_j, tb_i));   s_ij = scale · cos(a_i, b_j)

Paper: P017, Li et al. 2021 (ALBEF), whose teacher is a momentum model and whose mix is 0.4. With
mix 1 it is the distillation loss of open_clip. A teacher of one modality only, given for both,
makes targets of similarity within that modality, in the spirit of CWCL (Srinivasa et al. 2023,
P002, whose weights are linear in the cosine). The model as its own teacher is the soft alignment of
Andonian et al. 2022.

Decided here: no gradient goes to the teacher; the teacher's entropy, which would make a
Kullback-Leibler divergence of it, is a constant of the model and left out; records that lack a
modality have weight 0, their other half is a candidate for model and teacher alike.

One pass over the pairs: 4·B·B·D multiply-adds for the model, forward and backward, and 2·B·B·D' for
a teacher of width D'.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, SoftmaxMean, pair_reduce

PER: tuple[Literal["row", "col"], ...] = ("row", "col")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the soft targets.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        teacher: where the batch has the teacher's vectors: `batch[teacher][modality]` (B, D'), of
            any length, D' the same within a pair. None: the model's own embeddings, held still.
        teacher_scale: logit scale of the teacher.
        mix: share of the soft targets, the rest is the record itself: 1 only the teacher, 0 CLIP.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    teacher: str | None = "teacher"
    teacher_scale: float = 1 / 0.07
    mix: float = 0.4
    init_scale: float = 1 / 0.07
    max_scale: float | None = 100.0

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {"log_scale": jnp.float32(math.log(self.init_scale))}

    def init_state(self, key: jax.Array) -> None:
        return None

    def __call__(
        self,
        params: dict[str, Any],
        state: None,
        embeddings: Mapping[str, Embedding],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> Result:
        """See Objective.

        Raises:
            InputError: the batch has no teacher of that name for a modality.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms = {}
        for a, b in self.pairs:
            rows, cols = (
                {**side(embeddings, batch, m), "teacher": self._teacher(embeddings, batch, m)}
                for m in (a, b)
            )
            terms[f"{a}_{b}"] = self._term(rows, cols, scale)
        return Result(terms, None, {"logit_scale": scale})

    def _teacher(
        self, embeddings: Mapping[str, Embedding], batch: Mapping[str, Any], modality: str
    ) -> jax.Array:
        """The teacher's vectors (B, D')."""
        if self.teacher is None:
            return jax.lax.stop_gradient(embeddings[modality].z)
        if modality not in batch.get(self.teacher, {}):
            raise InputError(
                f"config.objective.teacher: the batch has no '{self.teacher}' for '{modality}'."
            )
        return jax.lax.stop_gradient(batch[self.teacher][modality])

    def _term(
        self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array
    ) -> Term:
        lse = {f"lse {per}": Reduce("logsumexp", "logit", per) for per in PER}
        soft = {f"soft {per}": Reduce(SoftmaxMean("value"), "teacher", per) for per in PER}
        own = {"own": Reduce("sum", "own", "row")}
        scales = {"model": scale, "teacher": jnp.float32(self.teacher_scale)}
        stats = pair_reduce(_tile, rows, cols, {**lse, **soft, **own}, scales)
        one_way = [
            stats[f"lse {per}"] - self.mix * stats[f"soft {per}"] - (1 - self.mix) * stats["own"]
            for per in PER
        ]
        both_B = rows["present"] & cols["present"]
        value_B = jnp.where(both_B, 0.5 * (one_way[0] + one_way[1]), 0.0)
        return Term(value_B, both_B.astype(jnp.float32))


def _tile(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
    logit = params["model"] * cosine(row["z"], col["z"])
    teacher = params["teacher"] * cosine(row["teacher"], col["teacher"])
    present = row["present"][:, None] & col["present"]
    return {
        "logit": jnp.where(present, logit, -jnp.inf),
        "value": jnp.where(present, logit, 0.0),  # finite, for -inf times no probability is nan
        "teacher": jnp.where(present, teacher, -jnp.inf),
        "own": jnp.where(at.row[:, None] == at.col, logit, 0.0),
    }
