"""Token-wise late interaction (FILIP): each part of one side looks for its best part of the other.

    value_i = ½ [ lse_j s_ij − s_ii ] + ½ [ lse_j s'_ji − s'_ii ]
    s_ij  = scale · mean_{t∈a_i} max_{u∈b_j} cos(t, u)      a's tokens look among b's
    s'_ji = scale · mean_{u∈b_i} max_{t∈a_j} cos(u, t)      b's tokens look among a's

Paper: P139, Yao et al. 2021 (FILIP), equations 1 to 5; the two similarities of a pair differ, and
each direction's softmax is over its own. Padding tokens are neither means nor maxima. Not here: the
paper's choice of the quarter of the tokens that attend most, and its half-precision transfers.

Decided here: a record without one of the two modalities, or without any token in one, has weight 0;
its other half still serves as a negative. Of equally near tokens each gets an equal part of the
gradient. With `config.micro_batches`, negatives come from a record's own micro-batch.

One pass over the pairs, both directions from one product of tokens: 4·B·B·T·U·D multiply-adds
forward and backward for T and U tokens a record.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding, unit
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the late interaction.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each; their towers give tokens.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    reads_tokens: ClassVar[bool] = True

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
        """See Objective.

        Raises:
            InputError: a tower gives no tokens.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms = {
            f"{a}_{b}": _term(_side(embeddings, batch, a), _side(embeddings, batch, b), scale)
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})


def _side(
    embeddings: Mapping[str, Embedding], batch: Mapping[str, Any], modality: str
) -> dict[str, jax.Array]:
    """Tokens (B, T, D), which of them are there (B, T), and who has any (B,)."""
    tokens_BxTxD, mask_BxT = embeddings[modality].tokens, embeddings[modality].mask
    if tokens_BxTxD is None:
        raise InputError(f"config.objective.pairs: the tower of '{modality}' gives no tokens.")
    if mask_BxT is None:
        mask_BxT = jnp.ones(tokens_BxTxD.shape[:2], bool)
    present_B = batch["present"][modality] & jnp.any(mask_BxT, axis=1)
    return {"tokens": tokens_BxTxD, "mask": mask_BxT, "present": present_B}


def _term(rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array) -> Term:
    reductions = {
        "row": Reduce("logsumexp", "row_logit", "row"),
        "col": Reduce("logsumexp", "col_logit", "col"),
        "own": Reduce("sum", "own_logits", "row"),
    }
    stats = pair_reduce(_tile, rows, cols, reductions, {"scale": scale})
    both_B = rows["present"] & cols["present"]
    value_B = jnp.where(both_B, 0.5 * (stats["row"] + stats["col"] - stats["own"]), 0.0)
    return Term(value_B, both_B.astype(jnp.float32))


def _tile(row: Any, col: Any, params: Any, at: At) -> dict[str, jax.Array]:
    from_row, from_col = similarities(row, col)
    row_logit, col_logit = params["scale"] * from_row, params["scale"] * from_col
    present = row["present"][:, None] & col["present"]
    own = present & (at.row[:, None] == at.col)
    return {
        "row_logit": jnp.where(present, row_logit, -jnp.inf),
        "col_logit": jnp.where(present, col_logit, -jnp.inf),
        "own_logits": jnp.where(own, row_logit + col_logit, 0.0),
    }


def similarities(row: Any, col: Any) -> tuple[jax.Array, jax.Array]:
    """s_ij/scale and s'_ji/scale of r rows and c columns, (r, c) each: the rows' tokens look among
    the columns', and these among the rows'.

    Both sides have `tokens` (n, T, D), of any length, and `mask` (n, T) bool. One that has no token
    is at -2 from what looks for it, and at 0 from what it looks for.
    """
    cosine_rxTxcxU = jnp.einsum("rtd,cud->rtcu", unit(row["tokens"]), unit(col["tokens"]))
    there_rxTxcxU = row["mask"][:, :, None, None] & col["mask"]
    cosine_rxTxcxU = jnp.where(there_rxTxcxU, cosine_rxTxcxU, -2.0)  # further than any
    best_rxTxc = jnp.max(cosine_rxTxcxU, axis=3)
    best_rxcxU = jnp.max(cosine_rxTxcxU, axis=1)
    from_row = jnp.einsum("rtc,rt->rc", best_rxTxc, _shares(row["mask"], best_rxTxc.dtype))
    from_col = jnp.einsum("rcu,cu->rc", best_rxcxU, _shares(col["mask"], best_rxcxU.dtype))
    return from_row, from_col


def _shares(mask_BxT: jax.Array, dtype: Any) -> jax.Array:
    """1/n for each of the n tokens that are there, 0 for the rest."""
    count_Bx1 = jnp.sum(mask_BxT, axis=1, keepdims=True)
    return mask_BxT.astype(dtype) / jnp.maximum(count_Bx1, 1)
