"""Symmetric softmax cross-entropy between paired modalities (InfoNCE, the loss of CLIP).

    value_i = ½ [ lse_j s_ij − mean_{j∈P(i)} s_ij ] + ½ [ lse_j s_ji − mean_{j∈P(i)} s_ji ]
    s_ij = scale · cos(a_i, b_j)

Source: Radford et al. 2021 (CLIP) for one positive, P(i) = {i}; several positives, P(i) = every j
with the label of i, enter as the mean of their logits (Khosla et al. 2020, SupCon, "out"). Decided
here: the ½ of both directions is inside the value; a record without one of the two modalities has
weight 0 and its other half still serves as a negative.

One pass over the pairs: 4·B·B·D multiply-adds forward and backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding, unit
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the symmetric softmax.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        positives: name of the batch's label whose equality makes a positive (`"concept"`); None:
            only the record itself.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    positives: str | None = None
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
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms = {
            f"{a}_{b}": self._term(
                side(embeddings, batch, a, self.positives),
                side(embeddings, batch, b, self.positives),
                scale,
            )
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})

    def _term(self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: Any) -> Term:
        stats = pair_reduce(
            _tile,
            rows,
            cols,
            {
                "row_lse": Reduce("logsumexp", "logit", "row"),
                "col_lse": Reduce("logsumexp", "logit", "col"),
                "row_sum": Reduce("sum", "positive_logit", "row"),
                "col_sum": Reduce("sum", "positive_logit", "col"),
                "row_count": Reduce("sum", "is_positive", "row"),
                "col_count": Reduce("sum", "is_positive", "col"),
            },
            {"scale": scale},
        )
        weight_B = (rows["present"] & cols["present"]).astype(jnp.float32)
        one_way = [
            stats[f"{per}_lse"] - stats[f"{per}_sum"] / jnp.maximum(stats[f"{per}_count"], 1.0)
            for per in ("row", "col")
        ]
        value_B = jnp.where(weight_B > 0, 0.5 * (one_way[0] + one_way[1]), 0.0)
        return Term(value_B, weight_B)


def side(
    embeddings: Mapping[str, Embedding],
    batch: Mapping[str, Any],
    modality: str,
    positives: str | None,
) -> dict[str, jax.Array]:
    """One side of the grid of pairs: unit embeddings, who is present, who is whose positive."""
    z_BxD = unit(embeddings[modality].z)
    label_B = jnp.arange(len(z_BxD), dtype=jnp.int32) if positives is None else batch[positives]
    return {"z": z_BxD, "label": label_B, "present": batch["present"][modality]}


def _tile(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
    logit = params["scale"] * (row["z"] @ col["z"].T)
    valid = row["present"][:, None] & col["present"]
    positive = valid & (row["label"][:, None] == col["label"])
    return {
        "logit": jnp.where(valid, logit, -jnp.inf),
        "positive_logit": jnp.where(positive, logit, 0.0),
        "is_positive": positive.astype(logit.dtype),
    }
