"""Vision transformer: patches of a picture as tokens (Dosovitskiy et al. 2020, arXiv:2010.11929).

By default mean-pooled. Those of CLIP and SigLIP, beside their sizes:

| | CLIP | SigLIP |
|---|---|---|
| `pool` | "cls" | "map" |
| `patch_bias` | False | True |
| `pre_norm` | True | False |
| `activation` | "quick_gelu" (OpenAI's), "gelu" (most of open_clip) | "gelu_tanh" |
| `epsilon` | 1e-5 | 1e-6 |
| `projection` | "linear" | "none" |

With `keep` only some patches of each picture go through the blocks in training (FLIP: Li et al.
2022, arXiv:2212.00794): as many of every picture, so that shapes are static. Which ones depends on
the record's key alone, and not on the others of its batch.
"""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from data_pipelines.errors import InputError
from mmcl.mesh import whole
from mmcl.models.attention_pool import AttentionPool
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
    """Picture tower.

    Input: `value` (B, H, W, C) floats; H and W are multiples of `patch`. In training with `keep`
    also `key` (B,), one of jax.random's typed keys for each picture. Tokens of the result are those
    of the patches, with the class token first if there is one; its mask is None.

    Attributes:
        pool: the mean of the tokens, the class token, or attention pooling ("map").
        patch_bias: whether the product with each patch has a bias.
        pre_norm: a norm before the blocks.
        projection: to `embed_dim`: a matrix, one with a bias, or none where widths are equal.
        keep: patches kept in training, as a share up to 1, or their number; the class token stays.
    """

    embed_dim: int
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    remat: Remat = "none"
    scan: bool = False
    pool: Literal["mean", "cls", "map"] = "mean"
    patch_bias: bool = True
    pre_norm: bool = False
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    projection: Projection = "linear"
    keep: float = 1.0

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
        patches, first = x_BxTxP.shape[1], int(self.pool == "cls")
        place_TxD = positions(self, first + patches, self.width)
        place_PxD = place_TxD[first:]
        if train and (kept := kept_patches(self.keep, patches)) < patches:
            index_BxK = chosen_patches(_key(inputs), patches, kept)
            x_BxTxP = jnp.take_along_axis(x_BxTxP, index_BxK[..., None], axis=1)
            place_PxD = whole(place_PxD)[index_BxK]
        x_BxTxD = nn.Dense(self.width, use_bias=self.patch_bias, name="patches")(x_BxTxP)
        x_BxTxD = x_BxTxD + place_PxD
        if first:
            cls_D = self.param("cls", nn.initializers.normal(0.01), (self.width,)) + place_TxD[0]
            cls_Bx1xD = jnp.broadcast_to(cls_D, (x_BxTxD.shape[0], 1, self.width))
            x_BxTxD = jnp.concatenate([cls_Bx1xD, x_BxTxD], axis=1)
        if self.pre_norm:
            x_BxTxD = nn.LayerNorm(self.epsilon, name="norm_pre")(x_BxTxD)
        return self._pooled(Encoder(**shared(self, Encoder), name="encoder")(x_BxTxD))

    def _pooled(self, x_BxTxD: jax.Array) -> Embedding:
        project = projection(self.projection, self.width, self.embed_dim)
        tokens_BxTxD = project(x_BxTxD)
        if self.pool == "mean":
            return Embedding(masked_mean(tokens_BxTxD, None), tokens_BxTxD)
        if self.pool == "cls":
            return Embedding(project(x_BxTxD[:, 0]), tokens_BxTxD)
        pool = AttentionPool(**shared(self, AttentionPool), name="pool")
        return Embedding(project(pool(x_BxTxD)), tokens_BxTxD)


def kept_patches(keep: float, patches: int) -> int:
    """How many of so many patches are kept: a share up to 1, rounded but 1 at least, or a number.

    Raises:
        InputError: no share and no whole number up to `patches`.
    """
    if 0 < keep <= 1:
        return max(1, round(keep * patches))
    if keep != int(keep) or not 0 < keep <= patches:
        raise InputError(
            f"keep={keep}: give a share of the {patches} patches, more than 0 and up to 1, or "
            "their number."
        )
    return int(keep)


def chosen_patches(key_B: jax.Array, patches: int, kept: int) -> jax.Array:
    """Numbers of the patches that each record keeps, in order: (B, kept) int32, by its key."""

    def chosen(key: jax.Array) -> jax.Array:
        return jnp.sort(jax.random.permutation(key, patches)[:kept])

    return jax.vmap(chosen)(key_B)


def _key(inputs: Mapping[str, jax.Array]) -> jax.Array:
    if "key" not in inputs:
        raise InputError(
            "A tower with keep draws patches by the key of each record, and its inputs have no "
            "'key': give jax.random keys (B,), or set keep=1."
        )
    return inputs["key"]
