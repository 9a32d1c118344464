"""Text transformer over subword tokens.

By default bidirectional and mean-pooled over the tokens that are there. Those of CLIP and SigLIP,
beside their sizes:

| | CLIP | SigLIP |
|---|---|---|
| `causal` | True | False |
| `attend_padding` | False | True |
| `pool` | "eot" | "last" |
| `activation` | "quick_gelu" (OpenAI's), "gelu" (most of open_clip) | "gelu_tanh" |
| `epsilon` | 1e-5 | 1e-6 |
| `projection` | "linear" | "affine" |
"""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.mesh import whole
from mmcl.models.embedding import Embedding
from mmcl.models.transformer import (
    Activation,
    Encoder,
    Projection,
    Remat,
    masked_mean,
    positions,
    projection,
    shared,
)


class Tower(nn.Module):
    """Text tower.

    Input: `value` (B, L) int32 token ids below `vocab_size`, `mask` (B, L) bool.

    Attributes:
        causal: no token sees those after it.
        attend_padding: padding is seen as any other token, as in SigLIP's training.
        pool: the mean of the tokens that are there; the last of those that are there ("eot"), which
            is the mark of the end where the tokenizer sets one, the largest id by which CLIP finds
            it; or the last of all L, padding or not ("last").
        projection: to `embed_dim`: a matrix, one with a bias, or none where widths are equal.
    """

    embed_dim: int
    vocab_size: int
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    remat: Remat = "none"
    scan: bool = False
    causal: bool = False
    attend_padding: bool = False
    pool: Literal["mean", "eot", "last"] = "mean"
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    projection: Projection = "linear"

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
        x_BxLxD = Encoder(**shared(self, Encoder), name="encoder")(
            x_BxLxD, None if self.attend_padding else mask_BxL
        )
        project = projection(self.projection, self.width, self.embed_dim)
        tokens_BxLxD = project(x_BxLxD)
        if self.pool == "mean":
            z_BxD = masked_mean(tokens_BxLxD, mask_BxL)
        elif self.pool == "last":
            z_BxD = project(x_BxLxD[:, -1])
        else:
            z_BxD = project(_last_there(x_BxLxD, mask_BxL))
        return Embedding(z_BxD, tokens_BxLxD, mask_BxL)


def _last_there(x_BxLxD: jax.Array, mask_BxL: jax.Array) -> jax.Array:
    """The last token of each text that is there; the first where none is."""
    places_L = jnp.arange(mask_BxL.shape[1])
    last_B = jnp.max(jnp.where(mask_BxL, places_L, 0), axis=1)
    return jnp.take_along_axis(x_BxLxD, last_B[:, None, None], axis=1)[:, 0]
