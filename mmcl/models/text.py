"""Text transformer: bidirectional over subword tokens, mean-pooled over those that are there."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.mesh import whole
from mmcl.models.embedding import Embedding
from mmcl.models.transformer import Encoder, Remat, masked_mean, positions


class Tower(nn.Module):
    """Text tower.

    Input: `value` (B, L) int32 token ids below `vocab_size`, `mask` (B, L) bool.
    """

    embed_dim: int
    vocab_size: int
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    remat: Remat = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        ids_BxL, mask_BxL = inputs["value"], inputs["mask"]
        embed = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=nn.initializers.normal(self.width**-0.5),
            name="embed",
        )
        table_VxD = whole(embed.embedding)
        x_BxLxD = jnp.take(table_VxD, ids_BxL, axis=0) + positions(
            self, ids_BxL.shape[1], self.width
        )
        x_BxLxD = self._encoder()(x_BxLxD, mask_BxL)
        tokens_BxLxD = nn.Dense(self.embed_dim, use_bias=False, name="projection")(x_BxLxD)
        return Embedding(masked_mean(tokens_BxLxD, mask_BxL), tokens_BxLxD, mask_BxL)

    def _encoder(self) -> Encoder:
        return Encoder(
            self.depth, self.heads, self.mlp_ratio, self.remat, self.scan, name="encoder"
        )
