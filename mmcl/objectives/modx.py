"""Continual contrast (Mod-X): while CLIP learns from new data, it keeps the old similarities.

    <a>_<b>       InfoNCE, as `mmcl.objectives.infonce`, of s_ij = scale · cos(a_i, b_j)
    <a>_<b>_old   alpha · ½ [ K_i + K'_i ],   o_ij = teacher_scale · cos(old a_i, old b_j)
    K_i = [o_ii = max_j o_ij] · Σ_j p_ij (log p_ij − log q_ij)

p_i is the softmax of o_i over j, q_i that of s_i; K'_i is the same of o_ji and s_ji.

Paper: P071, Ni et al. 2023 (Mod-X), which holds what lies off the diagonal of the matrix of
similarities to that of the model before this stage (`config.teacher`). Rows in which the old model
does not find the record's own half say nothing, for it knows no better there: the paper puts the
current model's row in their place, whose divergence is 0.

Decided here: the whole row is held, the diagonal with it, where the old model is right; without a
teacher_scale its logits are as sharp as the current ones; no gradient goes to the old model or to
its scale; a record that lacks one of the two modalities has weight 0, its other half is a candidate
for both models.

One pass over the pairs: 4·B·B·D multiply-adds for the model, forward and backward, and 2·B·B·D for
the old one.
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
    """Options of the continual contrast.

    Attributes:
        pairs: pairs of modalities that are contrasted, two terms each.
        alpha: factor of what holds the similarities.
        teacher_scale: logit scale of the old model; None: the current one.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    alpha: float = 20.0
    teacher_scale: float | None = None
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
            InputError: the batch does not have what an old model makes of it.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        old = jax.lax.stop_gradient(scale) if self.teacher_scale is None else self.teacher_scale
        terms: dict[str, Term] = {}
        for a, b in self.pairs:
            rows, cols = ({**side(embeddings, batch, m), "old": _old(batch, m)} for m in (a, b))
            new, held = self._terms(rows, cols, {"model": scale, "old": old})
            terms |= {f"{a}_{b}": new, f"{a}_{b}_old": held}
        return Result(terms, None, {"logit_scale": scale})

    def _terms(
        self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scales: dict[str, Any]
    ) -> tuple[Term, Term]:
        reductions = {
            "own": Reduce("sum", "own", "row"),
            "old own": Reduce("sum", "old own", "row"),
        }
        for per in PER:
            reductions[f"lse {per}"] = Reduce("logsumexp", "logit", per)
            reductions[f"old lse {per}"] = Reduce("logsumexp", "old", per)
            reductions[f"old max {per}"] = Reduce("max", "old", per)
            reductions[f"away {per}"] = Reduce(SoftmaxMean("away"), "old", per)
        stats = pair_reduce(_tile, rows, cols, reductions, scales)
        both_B = rows["present"] & cols["present"]
        new_B = jnp.where(both_B, 0.5 * (stats["lse row"] + stats["lse col"]) - stats["own"], 0.0)
        held = []
        for per in PER:
            right_B = both_B & (stats["old own"] >= stats[f"old max {per}"])
            divergence_B = stats[f"away {per}"] + stats[f"lse {per}"] - stats[f"old lse {per}"]
            held.append(jnp.where(right_B, divergence_B, 0.0))
        held_B = self.alpha * 0.5 * (held[0] + held[1])
        weight_B = both_B.astype(jnp.float32)
        return Term(new_B, weight_B), Term(held_B, weight_B)


def _old(batch: Mapping[str, Any], modality: str) -> jax.Array:
    """What the old model makes of a modality, (B, D')."""
    if modality not in batch.get("teacher", {}):
        raise InputError(
            f"config.objective: the batch has no 'teacher' for '{modality}'; set config.teacher, "
            "in a stage after the first."
        )
    return jax.lax.stop_gradient(batch["teacher"][modality])


def _tile(row: Any, col: Any, scales: Any, at: At) -> dict[str, jax.Array]:
    logit = scales["model"] * cosine(row["z"], col["z"])
    old = scales["old"] * cosine(row["old"], col["old"])
    present = row["present"][:, None] & col["present"]
    own = at.row[:, None] == at.col
    return {
        "logit": jnp.where(present, logit, -jnp.inf),
        "old": jnp.where(present, old, -jnp.inf),
        "away": jnp.where(present, old - logit, 0.0),
        "own": jnp.where(own, logit, 0.0),
        "old own": jnp.where(own, old, 0.0),
    }
