"""Symmetric softmax cross-entropy between paired modalities (InfoNCE, the loss of CLIP).

    value_i = ½ [ lse_j s_ij − s_ii ] + ½ [ lse_j s_ji − s_ii ],   s_ij = scale · cos(a_i, b_j)

Source: Radford et al. 2021 (CLIP), figure 3; one direction of it is van den Oord et al. 2018
(InfoNCE). Decided here: the ½ of both directions is inside the value; a record without one of the
two modalities has weight 0 and its other half still serves as a negative. Several positives a
record: `mmcl.objectives.supcon`.

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
from pallas_kernels.pair_reduce.types import Tile


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the symmetric softmax.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

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
        terms = {
            f"{a}_{b}": term(side(embeddings, batch, a), side(embeddings, batch, b), scale)
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})


def _tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    logit = scale * cosine(row["z"], col["z"])
    present = row["present"][:, None] & col["present"]
    return {
        "logit": jnp.where(present, logit, -jnp.inf),
        "own": jnp.where(at.row[:, None] == at.col, logit, 0.0),
    }


def each_way(
    rows: dict[str, jax.Array], cols: dict[str, jax.Array], params: Any, tile: Tile = _tile
) -> tuple[jax.Array, jax.Array]:
    """lse_j s_ij − s_ii, and lse_j s_ji − s_ii: (B,) each, 0 where one of the two is not there.

    Args:
        rows, cols: what `side` gives of the two modalities.
        params: the scale, or what else the tile reads.
        tile: makes s, as `logit`, and its diagonal, as `own`.
    """
    reductions = {
        "row": Reduce("logsumexp", "logit", "row"),
        "col": Reduce("logsumexp", "logit", "col"),
        "own": Reduce("sum", "own", "row"),
    }
    stats = pair_reduce(tile, rows, cols, reductions, params)
    both_B = rows["present"] & cols["present"]
    return (
        jnp.where(both_B, stats["row"] - stats["own"], 0.0),
        jnp.where(both_B, stats["col"] - stats["own"], 0.0),
    )


def term(
    rows: dict[str, jax.Array], cols: dict[str, jax.Array], params: Any, tile: Tile = _tile
) -> Term:
    """The mean of both directions; arguments as of `each_way`."""
    row_B, col_B = each_way(rows, cols, params, tile)
    both_B = rows["present"] & cols["present"]
    return Term(0.5 * (row_B + col_B), both_B.astype(jnp.float32))
