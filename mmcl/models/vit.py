"""Vision transformer: patches of a picture as tokens (Dosovitskiy et al. 2020), mean-pooled."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from einops import rearrange

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.models.transformer import Encoder, Remat, masked_mean, positions


class Tower(nn.Module):
    """Picture tower.

    Input: `value` (B, H, W, C) floats; H and W are multiples of `patch`.
    """

    embed_dim: int
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    remat: Remat = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        height, width = inputs["value"].shape[1:3]
        if height % self.patch or width % self.patch:
            raise InputError(
                f"Patches of {self.patch} pixels do not tile pictures of {height} × {width}: "
                "change the tower's patch or the pictures' size."
            )
        x_BxTxP = rearrange(
            inputs["value"], "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch
        )
        x_BxTxD = nn.Dense(self.width, name="patches")(x_BxTxP)
        x_BxTxD = x_BxTxD + positions(self, x_BxTxD.shape[1], self.width)
        x_BxTxD = self._encoder()(x_BxTxD)
        tokens_BxTxD = nn.Dense(self.embed_dim, use_bias=False, name="projection")(x_BxTxD)
        return Embedding(masked_mean(tokens_BxTxD, None), tokens_BxTxD)

    def _encoder(self) -> Encoder:
        return Encoder(
            self.depth, self.heads, self.mlp_ratio, self.remat, self.scan, name="encoder"
        )
