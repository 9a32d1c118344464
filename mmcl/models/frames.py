"""A small residual network over time, for spectrograms and series.

Strided convolutions shorten what there is, residual blocks follow (He et al. 2016, here over time
alone), and the mean over the frames that are left is projected: when something is said, or how
often, matters less than what. Norms are of a frame by itself (Ba et al. 2016), and what is padding
is zero before every convolution, so that a sound means the same however long the clip around it.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding
from mmcl.models.transformer import masked_mean


class Tower(nn.Module):
    """Tower of a sequence of frames.

    Input: `value` (B, F, C) floats, best about zero with a deviation near 1; `mask` (B, F) bool,
    True on what is no padding, which comes last. Each stage halves the frames and has `depth`
    residual blocks. Tokens are the frames that are left; a sound without frames is all zeros.
    """

    embed_dim: int
    widths: Sequence[int] = (128, 256)
    depth: int = 1

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        x_BxFxC, mask_BxF = inputs["value"], inputs["mask"]
        for i, width in enumerate(self.widths):
            shorter = nn.Conv(width, (3,), strides=2, padding=((1, 1),), name=f"down_{i}")
            x_BxFxC = shorter(_there(x_BxFxC, mask_BxF))
            mask_BxF = mask_BxF[:, ::2]
            for j in range(self.depth):
                x_BxFxC = x_BxFxC + Residual(name=f"residual_{i}_{j}")(x_BxFxC, mask_BxF)
        x_BxFxC = nn.relu(nn.LayerNorm(name="norm")(x_BxFxC))
        project = nn.Dense(self.embed_dim, use_bias=False, name="projection")
        tokens_BxFxD = project(x_BxFxC)
        return Embedding(masked_mean(tokens_BxFxD, mask_BxF), tokens_BxFxD, mask_BxF)


class Residual(nn.Module):
    """Twice: layer norm, relu, a convolution over three frames."""

    @nn.compact
    def __call__(self, x_BxFxC: jax.Array, mask_BxF: jax.Array) -> jax.Array:
        for i in range(2):
            x_BxFxC = nn.relu(nn.LayerNorm(name=f"norm_{i}")(x_BxFxC))
            conv = nn.Conv(x_BxFxC.shape[-1], (3,), use_bias=False, name=f"conv_{i}")
            x_BxFxC = conv(_there(x_BxFxC, mask_BxF))
        return x_BxFxC


def _there(x_BxFxC: jax.Array, mask_BxF: jax.Array) -> jax.Array:
    """Zero where there is padding."""
    return jnp.where(mask_BxF[..., None], x_BxFxC, 0.0)
