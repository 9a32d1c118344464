"""Supervised contrastive loss: softmax cross-entropy with several positives a record (SupCon).

    value_i = lse_{j∈A(i)} s_ij − mean_{j∈P(i)} s_ij,   s_ij = scale · cos(a_i, b_j)

Source: Khosla et al. 2020, equation 2 ("out": the mean over positives stands outside the log). P(i)
is every j of A(i) with the label of i. Between two modalities A(i) is the whole batch, and the
value is the mean of both directions; the record itself is a positive. For a modality with itself
(`["image", "image"]`) A(i) leaves out i, and one direction says it all.

Paper: P037, Liu et al. 2024 (SupCon T2I), whose first stage is this loss within pictures, within
texts and between them (three `pairs`).

Decided here: a record without one of the two modalities has weight 0 and its other half still
serves others; so has a record that has no positive.

One pass over the pairs: 4·B·B·D multiply-adds forward and backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the supervised softmax.

    Attributes:
        positives: name of the batch's label whose equality makes a positive (`"concept"`).
        pairs: pairs of modalities that are contrasted, one term each; both may be the same one.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    positives: str
    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
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
        terms = {}
        for a, b in self.pairs:
            rows, cols = (side(embeddings, batch, m, self.positives) for m in (a, b))
            terms[f"{a}_{b}"] = _term(rows, cols, scale, itself=a == b)
        return Result(terms, None, {"logit_scale": scale})


def _term(
    rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array, itself: bool
) -> Term:
    directions: tuple[Literal["row", "col"], ...] = ("row",) if itself else ("row", "col")
    reductions = {}
    for per in directions:
        reductions[f"lse {per}"] = Reduce("logsumexp", "logit", per)
        reductions[f"sum {per}"] = Reduce("sum", "positive_logit", per)
        reductions[f"count {per}"] = Reduce("sum", "is_positive", per)
    stats = pair_reduce(partial(_tile, itself=itself), rows, cols, reductions, scale)
    counts_B = rows["present"] & cols["present"] & (stats["count row"] > 0)
    one_way = [
        stats[f"lse {per}"] - stats[f"sum {per}"] / jnp.maximum(stats[f"count {per}"], 1.0)
        for per in directions
    ]
    value_B = jnp.where(counts_B, sum(one_way) / len(one_way), 0.0)
    return Term(value_B, counts_B.astype(jnp.float32))


def _tile(row: Any, col: Any, scale: Any, at: At, *, itself: bool) -> dict[str, jax.Array]:
    logit = scale * cosine(row["z"], col["z"])
    valid = row["present"][:, None] & col["present"]
    if itself:
        valid = valid & (at.row[:, None] != at.col)
    positive = valid & (row["label"][:, None] == col["label"])
    return {
        "logit": jnp.where(valid, logit, -jnp.inf),
        "positive_logit": jnp.where(positive, logit, 0.0),
        "is_positive": positive.astype(logit.dtype),
    }
