"""Model-aware contrast (MACL): the temperature follows how well the model aligns its pairs.

    value_i = ½ [ r(x_i) + r(x'_i) ],   x_i = lse_j s_ij − s_ii,   x'_i = lse_j s_ji − s_ii
    s_ij = cos(a_i, b_j) / τ,   τ = temperature · (1 + alpha · (A − threshold))
    A = mean_i cos(a_i, b_i) without a gradient,   r(x) = x / (1 − e^{−x}), its divisor held still

Paper: P223, Huang et al. 2023 (MACL), for one direction within a modality. 1 − e^{−x_i} is what the
softmax leaves to the negatives of i. All gradients of x_i are proportional to it, so with few or
easy negatives they vanish; dividing by it undoes that.

Decided here: A is taken over the records of the whole batch that have both modalities, for every
pair of modalities by itself; the divisor is at least 1e-6; a record without one of the two has
weight 0 and its other half still serves as a negative. No temperature is learned; the logged scale
is the mean over the pairs.

One pass over the pairs: 4·B·B·D multiply-adds forward and backward.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding, unit
from mmcl.objectives import infonce
from mmcl.objectives.side import side
from mmcl.objectives.term import Result, Term


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the model-aware contrast.

    Attributes:
        pairs: pairs of modalities that are contrasted, one term each.
        temperature: τ where the alignment is at the threshold.
        alpha: by which share of it τ grows with the alignment; 0: it stays.
        threshold: the alignment at which τ is `temperature`.
        reweigh: whether gradients are kept from vanishing with few or easy negatives.

    Raises:
        InputError: options with which τ could fall to 0.
    """

    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    temperature: float = 0.1
    alpha: float = 0.5
    threshold: float = 0.0
    reweigh: bool = True

    def __post_init__(self) -> None:
        farthest = max(abs(1 - self.threshold), abs(-1 - self.threshold))
        if abs(self.alpha) * farthest >= 1:
            raise InputError(
                f"config.objective.alpha: {self.alpha} could make the temperature 0 or less; it "
                f"should be within ±{1 / farthest:g} for a threshold of {self.threshold}."
            )

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {}

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
        terms, scales = {}, []
        for a, b in self.pairs:
            rows, cols = side(embeddings, batch, a), side(embeddings, batch, b)
            both_B = rows["present"] & cols["present"]
            aligned = _alignment(rows["z"], cols["z"], both_B)
            scale = 1 / (self.temperature * (1 + self.alpha * (aligned - self.threshold)))
            row_B, col_B = infonce.each_way(rows, cols, scale)
            if self.reweigh:
                row_B, col_B = _reweighed(row_B), _reweighed(col_B)
            terms[f"{a}_{b}"] = Term(0.5 * (row_B + col_B), both_B.astype(jnp.float32))
            scales.append(scale)
        return Result(terms, None, {"logit_scale": jnp.mean(jnp.stack(scales))})


def _alignment(a_BxD: jax.Array, b_BxD: jax.Array, both_B: jax.Array) -> jax.Array:
    """A: the mean cosine of a record's two modalities, held still; 0 where no record has both."""
    cosine_B = jnp.sum(unit(a_BxD) * unit(b_BxD), axis=-1)
    mean = jnp.sum(jnp.where(both_B, cosine_B, 0.0)) / jnp.maximum(jnp.sum(both_B), 1)
    return jax.lax.stop_gradient(mean)


def _reweighed(x_B: jax.Array) -> jax.Array:
    of_negatives_B = jnp.maximum(-jnp.expm1(-x_B), 1e-6)
    return x_B / jax.lax.stop_gradient(of_negatives_B)
