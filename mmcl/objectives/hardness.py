"""Hardness-weighted contrast (LLaVE): the nearer a negative is, the more it counts.

    value_i = ½ [ log(e^{s_ii} + Σ_{j≠i} h_ij e^{s_ij}) − s_ii ] + ½ [ the same of s_ji ]
    h_ij = e^{alpha · cos(a_i, b_j)} without a gradient,   s_ij = scale · cos(a_i, b_j)

Paper: P264, Lan et al. 2025 (LLaVE), whose weights are these with an alpha of 9. With alpha 0 it is
CLIP.

Decided here: both directions, of which the paper has that from queries to targets; a record without
one of the two modalities has weight 0 and its other half still serves as a negative.

One pass over the pairs, the weights from the same product: 4·B·B·D multiply-adds forward and
backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.objectives import infonce
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result
from pallas_kernels.pair_reduce import At


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the hardness-weighted contrast.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        alpha: how much more the near ones count; 0: all alike.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    alpha: float = 9.0
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
        tile = partial(_tile, alpha=self.alpha)
        terms = {
            f"{a}_{b}": infonce.term(
                side(embeddings, batch, a), side(embeddings, batch, b), scale, tile
            )
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})


def _tile(row: Any, col: Any, scale: Any, at: At, *, alpha: float) -> dict[str, jax.Array]:
    cosine_rxc = cosine(row["z"], col["z"])
    logit = scale * cosine_rxc
    own = at.row[:, None] == at.col
    harder = jnp.where(own, logit, logit + alpha * jax.lax.stop_gradient(cosine_rxc))
    present = row["present"][:, None] & col["present"]
    return {
        "logit": jnp.where(present, harder, -jnp.inf),
        "own": jnp.where(own, logit, 0.0),
    }
