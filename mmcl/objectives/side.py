"""One side of the grid of pairs, as the tiles of the objectives see it, and what they compare."""

from collections.abc import Mapping
from typing import Any

import jax
from einops import rearrange

from data_pipelines.errors import InputError
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


def views(
    embeddings: Mapping[str, Embedding], batch: Mapping[str, Any], modality: str
) -> dict[str, jax.Array]:
    """As `side`, of a modality that has K views a record: the views of all records in turn.

    Returns:
        `z` (B·K, D), of any length; `present` (B·K,) bool: which views are there.

    Raises:
        InputError: it has one view only.
    """
    views_BxKxD = embeddings[modality].views
    if views_BxKxD is None:
        raise InputError(
            f"config.objective.pairs: '{modality}' has one view a record; end its transforms with "
            "`views.each`."
        )
    present_BxK = batch["present"][modality][:, None] & batch[modality]["present"]
    return {"z": rearrange(views_BxKxD, "b k d -> (b k) d"), "present": present_BxK.reshape(-1)}


def cosine(z_rxD: jax.Array, z_cxD: jax.Array) -> jax.Array:
    """(r, c) cosines of a tile.

    Vectors are brought to length one in the tile, where that costs next to nothing: outside it,
    normalised copies and their gradients would be as large as the batch, four of them.
    """
    return unit(z_rxD) @ unit(z_cxD).T
