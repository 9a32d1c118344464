"""What a tower returns."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Embedding(NamedTuple):
    """A batch of encoded inputs.

    `z_BxD` is the pooled embedding, of any length (objectives normalise). `tokens_BxTxD` and
    `mask_BxT` are there for objectives that compare parts (None where a tower has none). Where a
    record has several views of a modality (captions, pictures), `views_BxKxD` are their embeddings;
    `z_BxD` is then the mean of the unit vectors of those that are there.
    """

    z: jax.Array  # z_BxD
    tokens: jax.Array | None = None  # tokens_BxTxD
    mask: jax.Array | None = None  # mask_BxT, bool
    views: jax.Array | None = None  # views_BxKxD


def unit(z: Any) -> jax.Array:
    """Rows of length one, in float32; a zero row stays zero (and so does its gradient)."""
    z = z.astype(jnp.float32) if z.dtype != jnp.float64 else z
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    zero = square < jnp.finfo(z.dtype).tiny
    return jnp.where(zero, 0.0, z * jax.lax.rsqrt(jnp.where(zero, 1.0, square)))
