"""One vector a record through one wide hidden layer:  z = W₂ gelu(W₁ x + b).

Wide, shallow and started at random, such a network stays close to a smooth kernel machine on x
(Jacot et al. 2018, arXiv:1806.07572): inputs that lie near each other keep lying near each other,
trained on or not. So it suits vectors that already tell what is alike.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Tower of a vector.

    Input: `value` (B, F) floats, best with a root mean square near 1 in each row.
    """

    embed_dim: int
    width: int = 1024

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        h_BxW = nn.gelu(nn.Dense(self.width, name="up")(inputs["value"]))
        return Embedding(nn.Dense(self.embed_dim, use_bias=False, name="projection")(h_BxW))
