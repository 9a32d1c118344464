"""A small residual network over oriented edges and colour contrasts.

The first layer is fixed: how strong the edges of each of `orientations` directions are in each
cell, as in histograms of oriented gradients (Dalal and Triggs 2005). A filled shape, its outline
and its negative then look nearly alike, so that few examples of few styles go a long way. Beside
them stand the two colour contrasts of each cell, zero in a drawing without colour. Residual blocks
with group norm follow (He et al. 2016; Wu and He 2018; no example sees another), and a dense layer
over all places: icons are centred, so where a thing is says what it is.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Picture tower.

    Input: `value` (B, H, W, C) floats from -1 to 1; H and W are multiples of cell · 2^len(widths).
    Each stage halves the map and has `depth` residual blocks; widths are multiples of 8. With
    `tokens`, each place of the last map is one, by a projection that all places share.
    """

    embed_dim: int
    widths: Sequence[int] = (96, 192)
    depth: int = 1
    orientations: int = 8
    cell: int = 2
    tokens: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        edges = oriented_edges(inputs["value"], self.orientations, self.cell)
        x_BxHxWxC = jnp.concatenate([edges, contrasts(inputs["value"], self.cell)], axis=-1)
        for i, width in enumerate(self.widths):
            x_BxHxWxC = nn.Conv(width, (3, 3), strides=2, name=f"down_{i}")(x_BxHxWxC)
            for j in range(self.depth):
                x_BxHxWxC = x_BxHxWxC + Residual(name=f"residual_{i}_{j}")(x_BxHxWxC)
        x_BxHxWxC = nn.relu(nn.GroupNorm(num_groups=8, name="norm")(x_BxHxWxC))
        x_BxF = x_BxHxWxC.reshape(x_BxHxWxC.shape[0], -1)
        z_BxD = nn.Dense(self.embed_dim, use_bias=False, name="projection")(x_BxF)
        if not self.tokens:
            return Embedding(z_BxD)
        x_BxTxC = rearrange(x_BxHxWxC, "b h w c -> b (h w) c")
        of_place = nn.Dense(self.embed_dim, use_bias=False, name="token_projection")
        return Embedding(z_BxD, of_place(x_BxTxC))


class Residual(nn.Module):
    """Twice: group norm, relu, 3 × 3 convolution."""

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        for i in range(2):
            x_BxHxWxC = nn.relu(nn.GroupNorm(num_groups=8, name=f"norm_{i}")(x_BxHxWxC))
            conv = nn.Conv(x_BxHxWxC.shape[-1], (3, 3), use_bias=False, name=f"conv_{i}")
            x_BxHxWxC = conv(x_BxHxWxC)
        return x_BxHxWxC


def oriented_edges(x_BxHxWxC: jax.Array, orientations: int, cell: int) -> jax.Array:
    """Strength of the edges of each orientation in each `cell` × `cell` square.

    With the brightness gradient (m, θ) of a pixel, θ modulo π, orientation k of n gets
    m · max(0, cos 2(θ − kπ/n))²; then the mean over the cell, a square root against strong edges,
    and division by the picture's root mean square. Small constants (1e-4 and 1e-6 under the
    roots and fractions) keep all of it smooth where there is no edge.

    Returns:
        (B, H / cell, W / cell, orientations), the same for a picture and its negative.
    """
    grey_BxHxW = jnp.pad(x_BxHxWxC.mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    gx_BxHxW = grey_BxHxW[:, 1:-1, 2:] - grey_BxHxW[:, 1:-1, :-2]
    gy_BxHxW = grey_BxHxW[:, 2:, 1:-1] - grey_BxHxW[:, :-2, 1:-1]
    square_BxHxW = gx_BxHxW**2 + gy_BxHxW**2
    safe_BxHxW = square_BxHxW + 1e-4  # no direction where there is no edge
    cos_BxHxW = (gx_BxHxW**2 - gy_BxHxW**2) / safe_BxHxW
    sin_BxHxW = 2 * gx_BxHxW * gy_BxHxW / safe_BxHxW
    angle_K = 2 * jnp.pi * jnp.arange(orientations, dtype=x_BxHxWxC.dtype) / orientations
    match_BxHxWxK = cos_BxHxW[..., None] * jnp.cos(angle_K) + sin_BxHxW[..., None] * jnp.sin(
        angle_K
    )
    edge_BxHxWxK = nn.relu(match_BxHxWxK) ** 2 * jnp.sqrt(square_BxHxW + 1e-6)[..., None]
    cells = nn.avg_pool(edge_BxHxWxK, (cell, cell), (cell, cell))
    cells = jnp.sqrt(cells + 1e-4) - 1e-2
    return cells * jax.lax.rsqrt((cells**2).mean(axis=(1, 2, 3), keepdims=True) + 1e-4)


def contrasts(x_BxHxWxC: jax.Array, cell: int) -> jax.Array:
    """Red against green, yellow against blue: each cell's mean, (B, H / cell, W / cell, 2)."""
    red, green, blue = jnp.moveaxis(x_BxHxWxC, -1, 0)
    opponents = jnp.stack([red - green, (red + green) / 2 - blue], axis=-1)
    return nn.avg_pool(opponents, (cell, cell), (cell, cell))
