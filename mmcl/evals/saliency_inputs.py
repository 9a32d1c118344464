"""The parts of an input that saliency is about, and its score as a function of them.

| input | its parts | one that is taken out |
|---|---|---|
| pictures (H, W, C), films (T, H, W, C) | pixels, their channels summed up | the mean colour |
| other floats: vectors, signals, spectrograms | every value | the mean value |
| ids (L,) with a mask | tokens, summed up over their vectors | masked, as padding is |

Decided here: the baseline of integrated gradients is each record's mean over its parts: colour,
value, or token vector. It stands also in the place of what is taken out, where Petsiuk et al. blur,
but for tokens, which can be left out. At zero, towers that normalise are so steep that no sum of
gradients is an integral.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.evals import token_vectors
from mmcl.evals.input_scores import Score, cosine, encoder, floats, is_ids


class Parts(NamedTuple):
    """A batch of inputs as what saliency is asked of."""

    value: jax.Array  # floats (B, *places, ...): what follows the places is summed up
    baseline: jax.Array
    there: jax.Array  # (B, *places) bool
    score: Score  # of values
    without: Callable[[jax.Array], jax.Array]  # (B, *places) bool, what is taken out -> score_B


def parts_of(
    tower: nn.Module,
    dtype: Any,
    params: Any,
    inputs: Mapping[str, Any],
    partner_BxD: jax.Array,
    prefix: int | None,
) -> Parts:
    """Of inputs as a tower gets them; the score is the cosine with the partner."""
    read = _of_tokens if is_ids(inputs) else _of_values
    return read(tower, dtype, params, inputs, partner_BxD, prefix)


def _of_values(
    tower: nn.Module,
    dtype: Any,
    params: Any,
    inputs: Mapping[str, Any],
    partner_BxD: jax.Array,
    prefix: int | None,
) -> Parts:
    """Pixels and floats: the last of three axes or more are channels."""
    value = floats(inputs["value"])
    places = value.shape[:-1] if value.ndim > 3 else value.shape
    there = _mask(inputs["mask"], places) if "mask" in inputs else jnp.ones(places, bool)
    baseline = _mean(value, there)
    score = cosine(encoder(tower, dtype, params, inputs, prefix), partner_BxD)

    def without(gone: jax.Array) -> jax.Array:
        gone = gone[..., None] if value.ndim > 3 else gone
        return score(jnp.where(gone, baseline, value))

    return Parts(value, baseline, there, score, without)


def _of_tokens(
    tower: nn.Module,
    dtype: Any,
    params: Any,
    inputs: Mapping[str, Any],
    partner_BxD: jax.Array,
    prefix: int | None,
) -> Parts:
    """Ids (B, L): the values are the vectors that they are read as."""
    ids_BxL, mask_BxL = inputs["value"], inputs["mask"]
    encode, vector_BxLxD = token_vectors.of_vectors(tower, dtype, params, inputs, prefix)
    padding = jnp.max(jnp.where(mask_BxL, 0, ids_BxL))  # its id, 0 where there is none

    def without(gone_BxL: jax.Array) -> jax.Array:
        those = {**inputs, "mask": mask_BxL & ~gone_BxL}
        of_ids = cosine(encoder(tower, dtype, params, those, prefix), partner_BxD)
        return of_ids(jnp.where(gone_BxL, padding, ids_BxL))

    baseline = _mean(vector_BxLxD, mask_BxL)
    return Parts(vector_BxLxD, baseline, mask_BxL, cosine(encode, partner_BxD), without)


def _mask(mask: jax.Array, places: Sequence[int]) -> jax.Array:
    """A mask of leading places (frames), or of the last (samples of several channels), for all."""
    leading = mask.shape == tuple(places[: mask.ndim])
    after = len(places) - mask.ndim if leading else 0
    mask = mask.reshape(*mask.shape, *(1,) * after) if leading else mask[:, None]
    return jnp.broadcast_to(mask, places)


def _mean(value: jax.Array, there: jax.Array) -> jax.Array:
    """Of each record and channel over the parts that are there, in the place of every part."""
    axes = tuple(range(1, there.ndim))
    weight = there.reshape(*there.shape, *(1,) * (value.ndim - there.ndim))
    total = jnp.sum(value * weight, axis=axes, keepdims=True)
    count = jnp.maximum(weight.sum(axis=axes, keepdims=True), 1)
    return jnp.broadcast_to(total / count, value.shape)
