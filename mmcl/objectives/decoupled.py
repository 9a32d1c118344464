"""Decoupled contrastive loss (DCL): a record's own pair is no part of its denominator.

    value_i = ½ [ lse_{j≠i} s_ij + lse_{j≠i} s_ji ] − w_i · s_ii,   s_ij = scale · cos(a_i, b_j)
    w_i = 1 (DCL),   or   2 − exp(cos(a_i, b_i) / σ) / mean_k exp(cos(a_k, b_k) / σ) (DCLW)

Paper: P038, Yeh et al. 2022 (DCL), equations 6 and 7, between two modalities. It contrasts two
views of one picture and also takes the other records of the same view as negatives; here, as in
CLIP, negatives are those of the other modality. The weight of DCLW (negative von Mises-Fisher, 1 on
average) pulls more at pairs that are still far apart. Decided here: gradients flow through it, as
the formula says and its public implementations do; the mean runs over the records that count, of
the whole batch; a record without one of the two modalities, or without any negative, has weight 0.

One pass over the pairs: 4·B·B·D multiply-adds forward and backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the decoupled loss.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        sigma: σ of the weight of DCLW (0.5 in the paper); None: no weight, plain DCL.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    sigma: float | None = None
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
            f"{a}_{b}": self._term(side(embeddings, batch, a), side(embeddings, batch, b), scale)
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})

    def _term(
        self, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array
    ) -> Term:
        reductions = {
            "row": Reduce("logsumexp", "negative", "row"),
            "col": Reduce("logsumexp", "negative", "col"),
            "own": Reduce("sum", "own", "row"),
        }
        stats = pair_reduce(_tile, rows, cols, reductions, scale)
        counts_B = rows["present"] & cols["present"]
        counts_B = counts_B & jnp.isfinite(stats["row"]) & jnp.isfinite(stats["col"])
        pull_B = scale * stats["own"]
        if self.sigma is not None:
            share_B = jax.nn.softmax(stats["own"] / self.sigma, where=counts_B)
            pull_B = (2 - jnp.sum(counts_B) * share_B) * pull_B
        value_B = jnp.where(counts_B, 0.5 * (stats["row"] + stats["col"]) - pull_B, 0.0)
        return Term(value_B, counts_B.astype(jnp.float32))


def _tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    cosine_rxc = cosine(row["z"], col["z"])
    own = at.row[:, None] == at.col
    negative = row["present"][:, None] & col["present"] & ~own
    return {
        "negative": jnp.where(negative, scale * cosine_rxc, -jnp.inf),
        "own": jnp.where(own, cosine_rxc, 0.0),
    }
