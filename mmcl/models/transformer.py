"""The transformer encoder that every token sequence goes through."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange


class Block(nn.Module):
    """Pre-norm transformer block: self-attention and a two-layer GELU network, each residual."""

    heads: int
    mlp_ratio: float = 4.0

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
        x_BxTxD = x_BxTxD + self._attention(nn.LayerNorm(name="norm_1")(x_BxTxD), mask_BxT)
        h_BxTxF = nn.LayerNorm(name="norm_2")(x_BxTxD)
        h_BxTxF = nn.gelu(nn.Dense(int(x_BxTxD.shape[-1] * self.mlp_ratio), name="up")(h_BxTxF))
        return x_BxTxD + nn.Dense(x_BxTxD.shape[-1], name="down")(h_BxTxF)

    def _attention(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
        qkv = nn.Dense(3 * x_BxTxD.shape[-1], name="qkv")(x_BxTxD)
        q, k, v = rearrange(qkv, "b t (three h k) -> three b t h k", three=3, h=self.heads)
        mask = None if mask_BxT is None else mask_BxT[:, None, None, :]  # who may be looked at
        out_BxTxHxK = jax.nn.dot_product_attention(q, k, v, mask=mask)
        return nn.Dense(x_BxTxD.shape[-1], name="out")(
            rearrange(out_BxTxHxK, "b t h k -> b t (h k)")
        )


class Encoder(nn.Module):
    """`depth` blocks and a final norm.

    Args of the call: x_BxTxD tokens; mask_BxT bool, False where there is only padding.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None = None) -> jax.Array:
        for i in range(self.depth):
            x_BxTxD = Block(self.heads, self.mlp_ratio, name=f"blocks_{i}")(x_BxTxD, mask_BxT)
        return nn.LayerNorm(name="norm")(x_BxTxD)


def masked_mean(x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
    """Mean over the tokens that are there; zero where none is."""
    if mask_BxT is None:
        return x_BxTxD.mean(axis=1)
    weight_BxT = mask_BxT.astype(x_BxTxD.dtype)
    total_BxD = jnp.einsum("btd,bt->bd", x_BxTxD, weight_BxT)
    return total_BxD / jnp.maximum(weight_BxT.sum(axis=1, keepdims=True), 1)


def positions(module: nn.Module, length: int, width: int) -> Any:
    """Learned position embeddings in `module`, small beside the tokens they are added to."""
    return module.param("positions", nn.initializers.normal(0.01), (length, width))
