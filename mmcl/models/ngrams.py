"""Bag of n-grams: a text is the counts of its hashed n-grams, read by a small network.

    z = W₃ gelu(W₂ gelu(norm(E log(1 + count))))

After fastText's classifier (Joulin et al. 2016, arXiv:1607.01759), which averages the n-grams'
embeddings. Decided here: counts enter by log(1 + count), which keeps how often an n-gram occurs but
not in proportion, and layers follow the bag. Counts are made dense, because a product with E is
faster, forward and backward, than to gather its rows and scatter their gradients.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Tower of a bag of n-grams.

    Input: `value` (B, L) int32 numbers of n-grams, 0 or more, repeats included; `mask` (B, L) bool.
    Their order does not matter. An n-gram falls into the bucket `value % buckets`.
    """

    embed_dim: int
    buckets: int
    width: int = 256
    mlp_ratio: float = 2.0

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        table_VxW = self.param(
            "embedding", nn.initializers.normal(0.05), (self.buckets, self.width)
        )
        count_BxV = counts(inputs["value"] % self.buckets, inputs["mask"], self.buckets)
        h_BxW = jnp.log1p(count_BxV).astype(table_VxW.dtype) @ table_VxW
        h_BxW = nn.gelu(nn.LayerNorm(name="norm")(h_BxW))
        h_BxF = nn.gelu(nn.Dense(int(self.width * self.mlp_ratio), name="up")(h_BxW))
        return Embedding(nn.Dense(self.embed_dim, use_bias=False, name="projection")(h_BxF))


def counts(ids_BxL: jax.Array, mask_BxL: jax.Array, buckets: int) -> jax.Array:
    """How often each bucket occurs in each row: (B, buckets) float32."""
    count = functools.partial(jnp.bincount, length=buckets)
    return jax.vmap(count)(ids_BxL, mask_BxL.astype(jnp.float32))
