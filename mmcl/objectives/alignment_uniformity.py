"""CLIP's loss with alignment and uniformity beside it, against the contrastive gap (CUA, CUAXU).

    <a>_<b>              InfoNCE, as `mmcl.objectives.infonce`
    <a>_<b>_alignment    align · ‖u_i − v_i‖²
    <a>_uniformity       uniform · ½ · log mean_{j≠k} exp(−t ‖u_j − u_k‖²), and <b>_uniformity
    <a>_<b>_uniformity   cross · log mean_{j≠k} exp(−t ‖u_j − v_k‖²)

u_i and v_i are the unit vectors of a record's two modalities.

Paper: P003, Fahim et al. 2024 (CUA; with `cross`, CUAXU). Alignment and uniformity are those of
Wang and Isola 2020, whose t is 2.

Decided here: uniformity is the mean of the two modalities, hence its ½; a modality in several pairs
has one such term; pairs of records are all that have the modalities in question. A uniformity is
one number of the batch, the value of each record that has part in it. With fewer than two records
there is no pair, and the weight is 0. Terms whose factor is 0 are not made.

Multiply-adds forward and backward: 4·B·B·D for InfoNCE; 3·B·B·D for the uniformity of a modality,
of which one side is differentiated, for the other's gradient is the same again; 4·B·B·D for that
across two.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding, unit
from mmcl.objectives import infonce
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of CLIP's loss with alignment and uniformity.

    Attributes:
        pairs: pairs of modalities that are contrasted.
        align: factor of the alignment.
        uniform: factor of the uniformity within the modalities.
        cross: factor of that across two; 1 makes it CUAXU.
        t: how near is near, in the uniformities.
        init_scale: first value of the learned logit scale 1/τ of InfoNCE.
        max_scale: its upper bound; None for none.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    align: float = 1.0
    uniform: float = 1.0
    cross: float = 0.0
    t: float = 2.0
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
        sides = {m: side(embeddings, batch, m) for pair in self.pairs for m in pair}
        terms = {}
        for a, b in self.pairs:
            rows, cols = sides[a], sides[b]
            terms[f"{a}_{b}"] = infonce.term(rows, cols, scale)
            if self.align:
                terms[f"{a}_{b}_alignment"] = _alignment(rows, cols, self.align)
            if self.cross:
                apart = self.cross * _uniformity(rows, cols, self.t, itself=False)
                terms[f"{a}_{b}_uniformity"] = _of_the_batch(apart, rows, cols)
        if self.uniform:
            for m, rows in sides.items():
                apart = 0.5 * self.uniform * _uniformity(rows, rows, self.t, itself=True)
                terms[f"{m}_uniformity"] = _of_the_batch(apart, rows, rows)
        return Result(terms, None, {"logit_scale": scale})


def _alignment(rows: dict[str, jax.Array], cols: dict[str, jax.Array], factor: float) -> Term:
    both_B = rows["present"] & cols["present"]
    square_B = jnp.sum(jnp.square(unit(rows["z"]) - unit(cols["z"])), axis=-1)
    return Term(jnp.where(both_B, factor * square_B, 0.0), both_B.astype(jnp.float32))


def _uniformity(
    rows: dict[str, jax.Array], cols: dict[str, jax.Array], t: float, itself: bool
) -> jax.Array:
    """log mean exp(−t ‖·‖²) over the pairs of two different records; -inf where there is none."""
    if itself:
        cols = {**cols, "z": jax.lax.stop_gradient(cols["z"])}
    reductions = {"lse": Reduce("logsumexp", "near", "all")}
    lse = pair_reduce(partial(_tile, t=t), rows, cols, reductions)["lse"]
    none = jnp.isneginf(lse)
    lse = jnp.where(none, 0.0, lse)
    if itself:
        lse += lse - jax.lax.stop_gradient(lse)  # the gradient that the columns would get
    here, there, both = (
        jnp.sum(present, dtype=lse.dtype)
        for present in (rows["present"], cols["present"], rows["present"] & cols["present"])
    )
    mean = lse - jnp.log(jnp.maximum(here * there - both, 1.0))
    return jnp.where(none, -jnp.inf, mean)


def _of_the_batch(value: jax.Array, rows: dict[str, jax.Array], cols: dict[str, jax.Array]) -> Term:
    """A value of the batch as that of every record that has both."""
    counts_B = rows["present"] & cols["present"] & jnp.isfinite(value)
    return Term(jnp.where(counts_B, value, 0.0), counts_B.astype(jnp.float32))


def _tile(row: Any, col: Any, params: Any, at: At, *, t: float) -> dict[str, jax.Array]:
    near = 2 * t * (cosine(row["z"], col["z"]) - 1)  # −t ‖u − v‖²
    counts = row["present"][:, None] & col["present"] & (at.row[:, None] != at.col)
    return {"near": jnp.where(counts, near, -jnp.inf)}
