"""Bag of words: a text is the mean of its pieces' vectors, and nothing more.

    z = mean_i E[piece_i]

The input layer of fastText (Joulin et al. 2016, arXiv:1607.01759) alone. What a caption of new
words in new company means is then the mean of what each was seen with: on little data no network
behind it does better.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Tower of a bag of pieces (words, n-grams, tokens).

    Input: `value` (B, L) int32 numbers of pieces, 0 or more, repeats included; `mask` (B, L) bool.
    Their order does not matter. A piece falls into the bucket `value % buckets`; a text without
    pieces is all zeros. Tokens are the vectors of the pieces.
    """

    embed_dim: int
    buckets: int

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        table_VxD = self.param(
            "embedding", nn.initializers.normal(0.05), (self.buckets, self.embed_dim)
        )
        weight_BxL = inputs["mask"].astype(table_VxD.dtype)
        piece_BxLxD = table_VxD[inputs["value"] % self.buckets]
        sum_BxD = jnp.einsum("bl,bld->bd", weight_BxL, piece_BxLxD)
        count_Bx1 = jnp.maximum(weight_BxL.sum(axis=1, keepdims=True), 1)
        return Embedding(sum_BxD / count_Bx1, piece_BxLxD, inputs["mask"])
