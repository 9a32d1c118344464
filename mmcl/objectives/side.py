"""One side of the grid of pairs, as the tiles of the objectives see it, and what they compare."""

from collections.abc import Mapping
from typing import Any

import jax

from mmcl.models.embedding import Embedding, unit


def side(
    embeddings: Mapping[str, Embedding],
    batch: Mapping[str, Any],
    modality: str,
    label: str | None = None,
) -> dict[str, jax.Array]:
    """What a batch has of one modality, as leaves of `pair_reduce`.

    Args:
        label: name of an integer label of the batch that is taken along; None for none.

    Returns:
        `z` (B, D), of any length; `present` (B,) bool; and, where one is named, `label` (B,) int32.
    """
    leaves = {"z": embeddings[modality].z, "present": batch["present"][modality]}
    return leaves if label is None else {**leaves, "label": batch[label]}


def cosine(z_rxD: jax.Array, z_cxD: jax.Array) -> jax.Array:
    """(r, c) cosines of a tile.

    Vectors are brought to length one in the tile, where that costs next to nothing: outside it,
    normalised copies and their gradients would be as large as the batch, four of them.
    """
    return unit(z_rxD) @ unit(z_cxD).T
