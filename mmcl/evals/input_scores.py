"""Scores of records as functions of their inputs' values, for gradients with respect to these.

Whole numbers such as token ids have no gradient (`token_vectors.py` has one for their vectors).
uint8 are pixels: the score takes them as floats from -1 to 1, as the tower sees them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.models.embedding import unit
from mmcl.models.towers import Towers

Score = Callable[[jax.Array], jax.Array]  # values of B records, floats -> score_B


def is_pixels(inputs: Mapping[str, Any], modality: str) -> bool:
    """Whether values are pixels, or else floats.

    Raises:
        InputError: they are neither.
    """
    kind = np.dtype(inputs["value"].dtype) if "value" in inputs else None
    if kind is None or (kind != np.uint8 and not np.issubdtype(kind, np.floating)):
        raise InputError(
            f"the tower of '{modality}' reads {kind or 'no value'}, which has no gradient: name a "
            "modality of pixels (uint8) or floats"
        )
    return kind == np.uint8


def is_ids(inputs: Mapping[str, Any]) -> bool:
    """Whether values are ids of tokens, (B, L) whole numbers with a mask."""
    if "value" not in inputs or "mask" not in inputs:
        return False
    value = inputs["value"]
    return np.issubdtype(value.dtype, np.integer) and value.dtype != np.uint8 and value.ndim == 2


def floats(value: Any) -> jax.Array:
    """Values as the tower sees them, float32."""
    if value.dtype == jnp.uint8:
        return value.astype(jnp.float32) / 127.5 - 1.0
    return value.astype(jnp.float32)


def encoder(
    tower: nn.Module, dtype: Any, params: Any, inputs: Mapping[str, Any], prefix: int | None = None
) -> Score:
    """values -> z_BxD, unit rows of so many leading dimensions; all else of the inputs stays."""

    def encode(value: jax.Array) -> jax.Array:
        towers = Towers({"it": tower}, dtype)
        embedding = towers.encode({"it": params}, "it", {**inputs, "value": value}, train=False)
        return unit(embedding.z[:, :prefix]).astype(jnp.float32)

    return encode


def cosine(encode: Score, partner_BxD: jax.Array) -> Score:
    """values -> each record's cosine with its own partner."""
    return lambda value: jnp.sum(encode(value) * partner_BxD, axis=-1)


def slopes(score: Score) -> Callable[[jax.Array], jax.Array]:
    """values -> the gradient of each record's score: no score hangs on another record."""
    return jax.grad(lambda value: score(value).sum())
