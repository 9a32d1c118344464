"""Dual encoders for extreme multi-label classification (DEXML): a query has many right labels.

    decoupled    value_i = mean_{p∈P(i)} log(1 + e^{m_i − s_ip}),   m_i = lse_{n∈N(i)} s_in
    soft_top_k   the same with m_i = −t_i,   Σ_{c∈C} σ(s_ic + t_i) = min(top, |C| − ½)
    softmax      value_i = mean_{p∈P(i)} [ lse_{c∈C} s_ic − s_ip ]

C are the labels of the batch, each once, P(i) those of C that are right for query i, N(i) the rest;
s = scale · cos.

Paper: P043, Gupta et al. 2024 (DEXML): its decoupled softmax, in which a right label competes with
the wrong ones only; its soft top-k loss, for which it is enough to be among the first k; and the
softmax that it compares them with.

Decided here: the mean over a query's right labels; a label that several records bring along is
that of the first; |C| − ½ where there are no more than `top`, so that there is a threshold; a query
without a right label in the batch, or that lacks a modality, has weight 0; where no label is wrong,
the decoupled value is 0.

Multiply-adds forward and backward, in B·C·D: decoupled 8 (two passes over the pairs), softmax 4,
soft_top_k 24 (16 of them seek the threshold).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side, views
from mmcl.objectives.soft_top_k import threshold
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the multi-label losses.

    Attributes:
        pairs: (queries, labels), one term each. Labels have several views a record, those that are
            brought along: `batch[labels]["ids"]` (B, K) int32 says which labels they are, and
            `batch[labels]["positives"]` (B, P) int32 all that are right for the record's query, -1
            where the list ends; ids are 0 or more.
        loss: which of the three.
        top: k of `soft_top_k`.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.

    Raises:
        InputError: `top` is less than 1.
    """

    pairs: tuple[tuple[str, str], ...] = (("text", "label"),)
    loss: Literal["decoupled", "softmax", "soft_top_k"] = "decoupled"
    top: int = 5
    init_scale: float = 1 / 0.07
    max_scale: float | None = 100.0

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"config.objective.top: {self.top} should be 1 or more.")

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
            InputError: labels have one view only, or no ids.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms = {}
        for a, b in self.pairs:
            labels = views(embeddings, batch, b)
            if not {"ids", "positives"} <= set(batch[b]):
                raise InputError(
                    f"config.objective.pairs: '{b}' should have 'ids' and 'positives'."
                )
            ids = jnp.asarray(batch[b]["ids"]).reshape(-1)
            cols = {"z": labels["z"], "id": ids, "present": _first(ids, labels["present"])}
            rows = {**side(embeddings, batch, a), "positives": batch[b]["positives"]}
            rows["present"] = rows["present"] & batch["present"][b]
            terms[f"{a}_{b}"] = self._term(rows, cols, scale)
        return Result(terms, None, {"logit_scale": scale})

    def _term(
        self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array
    ) -> Term:
        count = {"count": Reduce("sum", "is_positive", "row")}
        if self.loss == "softmax":
            lse = {"lse": Reduce("logsumexp", "score", "row")}
            sums = {"sum": Reduce("sum", "positive", "row")}
            stats = pair_reduce(_tile, rows, cols, lse | sums | count, scale)
            value_B = stats["lse"] - stats["sum"] / jnp.maximum(stats["count"], 1.0)
        else:
            rows = {**rows, "rival": self._rival(rows, cols, scale)}
            loss = {"sum": Reduce("sum", "loss", "row")}
            stats = pair_reduce(_rival_tile, rows, cols, loss | count, scale)
            value_B = stats["sum"] / jnp.maximum(stats["count"], 1.0)
        counts_B = rows["present"] & (stats["count"] > 0)
        return Term(jnp.where(counts_B, value_B, 0.0), counts_B.astype(jnp.float32))

    def _rival(
        self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array
    ) -> jax.Array:
        """m_i (B,): the score that a right label has to beat."""
        if self.loss == "decoupled":
            lse = {"lse": Reduce("logsumexp", "negative", "row")}
            return pair_reduce(_tile, rows, cols, lse, scale)["lse"]
        labels = jnp.maximum(jnp.sum(cols["present"], dtype=scale.dtype), 1.0)
        k = jnp.minimum(self.top, labels - 0.5)
        return -threshold(_tile, rows, cols, scale, k, labels, bound=scale)


def _first(ids_C: jax.Array, present_C: jax.Array) -> jax.Array:
    """Of those that are there the first with its id, (C,) bool."""
    order_C = jnp.lexsort((~present_C, ids_C))  # by id; what is there first, and then by position
    sorted_C = ids_C[order_C]
    begins_C = jnp.append(True, sorted_C[1:] != sorted_C[:-1])
    return present_C & jnp.zeros_like(present_C).at[order_C].set(begins_C)


def _tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    score = scale * cosine(row["z"], col["z"])
    there = row["present"][:, None] & col["present"]
    positive = there & jnp.any(row["positives"][:, :, None] == col["id"], axis=1)
    return {
        "score": jnp.where(there, score, -jnp.inf),
        "negative": jnp.where(there & ~positive, score, -jnp.inf),
        "positive": jnp.where(positive, score, 0.0),
        "is_positive": positive.astype(score.dtype),
    }


def _rival_tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    terms = _tile(row, col, scale, at)
    positive = terms["is_positive"] > 0
    loss = jax.nn.softplus(row["rival"][:, None] - terms["positive"])
    return {"loss": jnp.where(positive, loss, 0.0), "is_positive": terms["is_positive"]}
