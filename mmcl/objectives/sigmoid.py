"""Pairwise sigmoid cross-entropy (SigLIP): every pair is a yes-or-no question of its own.

    value_i = Σ_j softplus(−y_ij · (scale · cos(a_i, b_j) + bias)),   y_ij = +1 if j∈P(i) else −1

Source: Zhai et al. 2023 (SigLIP), equation 1 and its initial values (scale 10, bias −10); the mean
over i is their sum over all pairs divided by the batch size. P(i) = {i}, or every j with the label
of i. Decided here: pairs with an absent modality are left out; a record without one of the two
modalities has weight 0 as a row and serves as a column where it can.

One pass over the pairs: 3·B·B·D multiply-adds forward and backward are enough for it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.objectives.infonce import side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the pairwise sigmoid; see `mmcl.objectives.infonce` for the shared ones."""

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    positives: str | None = None
    init_scale: float = 10.0
    init_bias: float = -10.0
    max_scale: float | None = None

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {
            "log_scale": jnp.float32(math.log(self.init_scale)),
            "bias": jnp.float32(self.init_bias),
        }

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
        shared = {"scale": scale, "bias": params["bias"]}
        terms = {}
        for a, b in self.pairs:
            rows = side(embeddings, batch, a, self.positives)
            cols = side(embeddings, batch, b, self.positives)
            stats = pair_reduce(_tile, rows, cols, {"loss": Reduce("sum", "loss", "row")}, shared)
            weight_B = (rows["present"] & cols["present"]).astype(jnp.float32)
            terms[f"{a}_{b}"] = Term(stats["loss"], weight_B)
        return Result(terms, None, {"logit_scale": scale, "logit_bias": params["bias"]})


def _tile(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
    logit = params["scale"] * (row["z"] @ col["z"].T) + params["bias"]
    valid = row["present"][:, None] & col["present"]
    positive = row["label"][:, None] == col["label"]
    loss = jax.nn.softplus(jnp.where(positive, -logit, logit))
    return {"loss": jnp.where(valid, loss, 0.0)}
