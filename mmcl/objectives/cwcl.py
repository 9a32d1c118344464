"""Continuously weighted contrast (CWCL): a frozen tower says how alike records are.

    value_i = ½ F_i + ½ R_i
    F_i = lse_j s(p_i, q_j) − Σ_j w_ij s(p_i, q_j) / Σ_j w_ij,   w_ij = ½ + ½ cos(p_i, p_j)
    R_i = lse_j s(q_i, p_j) − s(q_i, p_i),                       s = scale · cos

p is the embedding of the locked modality and q that of the other one.

Paper: P002, Srinivasa et al. 2023 (CWCL). From the frozen tower to the other every record is a
positive, in the measure in which the frozen tower finds the two alike; back, the loss is CLIP's.

Decided here: the mean of both directions; no gradient to the locked modality, whose tower may
therefore also be left unfrozen; targets are the records that have both modalities, candidates all
that have the one in question; a record that lacks one has weight 0.

One pass over the pairs: 5·B·B·D multiply-adds forward and backward, of which 2·B·B·D are the
weights, forward and again. The locked side costs nothing backward.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the continuously weighted contrast.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        locked: the modality of each pair whose tower is frozen.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.

    Raises:
        InputError: a pair without the locked modality, or with it alone.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    locked: str = "image"
    init_scale: float = 1 / 0.07
    max_scale: float | None = 100.0

    def __post_init__(self) -> None:
        for pair in self.pairs:
            if list(pair).count(self.locked) != 1:
                raise InputError(
                    f"config.objective.locked: '{self.locked}' should be one of the two in each "
                    f"pair, and is not in {tuple(pair)}."
                )

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
        locked = side(embeddings, batch, self.locked)
        locked["z"] = jax.lax.stop_gradient(locked["z"])
        terms = {}
        for a, b in self.pairs:
            other = side(embeddings, batch, b if a == self.locked else a)
            terms[f"{a}_{b}"] = _term(locked, other, scale)
        return Result(terms, None, {"logit_scale": scale})


def _term(locked: dict[str, jax.Array], other: dict[str, jax.Array], scale: jax.Array) -> Term:
    both_B = locked["present"] & other["present"]
    cols = {**other, "locked": locked["z"], "both": both_B}
    reductions = {
        "row": Reduce("logsumexp", "logit", "row"),
        "col": Reduce("logsumexp", "logit", "col"),
        "own": Reduce("sum", "own", "row"),
        "weighted": Reduce("sum", "weighted", "row"),
        "weight": Reduce("sum", "weight", "row"),
    }
    stats = pair_reduce(_tile, locked, cols, reductions, scale)
    target_B = stats["weighted"] / jnp.where(both_B, stats["weight"], 1.0)
    forward_B, back_B = stats["row"] - target_B, stats["col"] - stats["own"]
    value_B = jnp.where(both_B, 0.5 * (forward_B + back_B), 0.0)
    return Term(value_B, both_B.astype(jnp.float32))


def _tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    logit = scale * cosine(row["z"], col["z"])
    present = row["present"][:, None] & col["present"]
    alike = 0.5 + 0.5 * cosine(row["z"], col["locked"])
    weight = jnp.where(row["present"][:, None] & col["both"], alike, 0.0)
    return {
        "logit": jnp.where(present, logit, -jnp.inf),
        "own": jnp.where(at.row[:, None] == at.col, logit, 0.0),
        "weighted": weight * logit,
        "weight": weight,
    }
