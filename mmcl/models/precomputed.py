"""Vectors that another model made, as they are: a tower without parameters.

What is contrasted with them is brought into their space, as in locked-image tuning (Zhai et al.
2022, LiT) when all of the locked tower's outputs are known beforehand.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    """Tower of a vector that is the embedding.

    Input: `value` (B, D) floats, D the `embed_dim` of all towers.
    """

    embed_dim: int

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool = False) -> Embedding:
        width = inputs["value"].shape[-1]
        if width != self.embed_dim:
            raise InputError(
                f"precomputed: the vectors have {width} numbers; set config.embed_dim={width}."
            )
        return Embedding(inputs["value"])
