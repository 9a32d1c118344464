"""Multi-head attention pooling (MAP): a learned query reads all tokens, and a network follows.

    h = attention(probe, tokens);   z = h + mlp(norm(h))

The pooling of Lee et al. 2019 (Set Transformer, arXiv:1810.00825) as the vision transformers of
Zhai et al. 2022 (arXiv:2106.04560) and SigLIP have it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmcl.mesh import examples_split
from mmcl.models.transformer import Activation, mlp


class AttentionPool(nn.Module):
    """From tokens (B, T, D) to one vector each, (B, D)."""

    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        batch, _, width = x_BxTxD.shape
        probe_D = self.param("probe", nn.initializers.normal(width**-0.5), (width,))
        q_D = nn.Dense(width, name="q")(probe_D)
        q = rearrange(q_D, "(h k) -> h k", h=self.heads)
        q = jnp.broadcast_to(q, (batch, 1, *q.shape))
        kv_BxTxE = examples_split(nn.Dense(2 * width, name="kv")(x_BxTxD))
        k, v = rearrange(kv_BxTxE, "b t (two h k) -> two b t h k", two=2, h=self.heads)
        out_Bx1xHxK = jax.nn.dot_product_attention(q, k, v)
        h_Bx1xD = nn.Dense(width, name="out")(rearrange(out_Bx1xHxK, "b t h k -> b t (h k)"))
        norm = nn.LayerNorm(self.epsilon, name="norm")
        return (h_Bx1xD + mlp(norm(h_Bx1xD), self.mlp_ratio, self.activation))[:, 0]
