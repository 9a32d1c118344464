"""Pairwise sigmoid cross-entropy (SigLIP): every pair is a yes-or-no question of its own.

    value_i = Σ_j softplus(−y_ij · (scale · cos(a_i, b_j) + bias)),   y_ij = +1 if j∈P(i) else −1

Source: Zhai et al. 2023 (SigLIP), equation 1 and its initial values (scale 10, bias −10); the mean
over i is their sum over all pairs divided by the batch size. P(i) = {i}, or every j with the label
of i. Decided here: pairs with an absent modality are left out; a record without one of the two
modalities has weight 0 as a row and serves as a column where it can.

A plain sum over pairs, so its gradients are made in the forward pass: 3·B·B·D multiply-adds.
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
from pallas_kernels.pair_reduce import At, pair_sum


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the pairwise sigmoid.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        positives: name of the batch's label whose equality makes a positive (`"concept"`); None:
            only the record itself.
        init_scale, init_bias: first values of the learned logit scale 1/τ and bias.
        max_scale: upper bound of the scale; None for none.
    """

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
        scale, bias = logit_scale(params["log_scale"], self.max_scale), params["bias"]
        terms = {}
        for a, b in self.pairs:
            rows, cols = (side(embeddings, batch, m, self.positives) for m in (a, b))
            counts_B = rows["present"] & cols["present"]
            rows = {**rows, "counts": counts_B}
            shared = {"scale": scale, "bias": bias}
            total, value_B = pair_sum(_tile, rows, cols, {"loss": 1.0}, shared)
            terms[f"{a}_{b}"] = Term(value_B, counts_B.astype(jnp.float32), total)
        return Result(terms, None, {"logit_scale": scale, "logit_bias": bias})


def _tile(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
    logit = params["scale"] * cosine(row["z"], col["z"]) + params["bias"]
    if "label" in row:
        positive = row["label"][:, None] == col["label"]
    else:
        positive = at.row[:, None] == at.col
    loss = jax.nn.softplus(jnp.where(positive, -logit, logit))
    return {"loss": jnp.where(row["counts"][:, None] & col["present"], loss, 0.0)}
