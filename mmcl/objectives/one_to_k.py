"""1-to-K contrast: a picture and its captions in K languages, all equally its own.

    value_i = ½ [ lse_c s_ic − mean_{c of i} s_ic ] + ½ mean_{c of i} [ lse_j s_jc − s_ic ]

c runs over the views (captions) of all records, j over the records; s = scale · cos.

Paper: P033, Nie et al. 2024 (1-to-K contrastive learning), between a picture and its texts. No
language is nearer to the picture, or more often a negative, than another.

Decided here: the mean over a record's captions stands outside the logarithm, so that each of them
is drawn alike; a record may have fewer than K, and one without any, or without the first modality,
has weight 0, while its other half still serves as a negative.

One pass over the pairs: 4·B·B·K·D multiply-adds forward and backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side, views
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the 1-to-K contrast.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each; the second has several views
            a record (`views.each` at the end of its transforms).
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
        """See Objective.

        Raises:
            InputError: the second of a pair has one view only.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms = {
            f"{a}_{b}": _term(side(embeddings, batch, a), views(embeddings, batch, b), scale)
            for a, b in self.pairs
        }
        return Result(terms, None, {"logit_scale": scale})


def _term(rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array) -> Term:
    there_BxK = cols["present"].reshape(len(rows["present"]), -1)
    reductions = {
        "row": Reduce("logsumexp", "logit", "row"),
        "col": Reduce("logsumexp", "logit", "col"),
        "own": Reduce("sum", "own", "row"),
    }
    tile = partial(_tile, views_each=there_BxK.shape[1])
    stats = pair_reduce(tile, rows, cols, reductions, scale)
    count_B = jnp.sum(there_BxK, axis=1)
    counts_B = rows["present"] & (count_B > 0)
    col_B = jnp.sum(jnp.where(there_BxK, stats["col"].reshape(there_BxK.shape), 0.0), axis=1)
    value_B = 0.5 * stats["row"] + (0.5 * col_B - stats["own"]) / jnp.maximum(count_B, 1)
    return Term(jnp.where(counts_B, value_B, 0.0), counts_B.astype(jnp.float32))


def _tile(row: Any, col: Any, scale: Any, at: At, *, views_each: int) -> dict[str, jax.Array]:
    logit = scale * cosine(row["z"], col["z"])
    present = row["present"][:, None] & col["present"]
    own = present & (at.row[:, None] == at.col // views_each)
    return {
        "logit": jnp.where(present, logit, -jnp.inf),
        "own": jnp.where(own, logit, 0.0),
    }
