"""Residual convolutional network for pictures (He et al. 2016), with group norm and a mean pool."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax

from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Picture tower: each stage halves the picture, then has `depth` residual blocks.

    Input: `value` (B, H, W, C) floats. Group norm (Wu and He 2018) instead of batch norm: no
    example sees another, so gradients do not depend on how a batch is cut.
    """

    embed_dim: int
    widths: Sequence[int] = (64, 128, 256)
    depth: int = 1

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        x_BxHxWxC = nn.Conv(self.widths[0] // 2, (3, 3), name="stem")(inputs["value"])
        for i, width in enumerate(self.widths):
            x_BxHxWxC = nn.Conv(width, (3, 3), strides=2, name=f"down_{i}")(x_BxHxWxC)
            for j in range(self.depth):
                x_BxHxWxC = x_BxHxWxC + Residual(name=f"blocks_{i}_{j}")(x_BxHxWxC)
        x_BxHxWxC = nn.relu(nn.GroupNorm(num_groups=8, name="norm")(x_BxHxWxC))
        tokens_BxTxC = x_BxHxWxC.reshape(x_BxHxWxC.shape[0], -1, x_BxHxWxC.shape[-1])
        tokens_BxTxD = nn.Dense(self.embed_dim, use_bias=False, name="projection")(tokens_BxTxC)
        return Embedding(tokens_BxTxD.mean(axis=1), tokens_BxTxD)


class Residual(nn.Module):
    """norm, relu, conv, norm, relu, conv."""

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        width = x_BxHxWxC.shape[-1]
        for i in range(2):
            x_BxHxWxC = nn.relu(nn.GroupNorm(num_groups=8, name=f"norm_{i}")(x_BxHxWxC))
            x_BxHxWxC = nn.Conv(width, (3, 3), use_bias=False, name=f"conv_{i}")(x_BxHxWxC)
        return x_BxHxWxC
