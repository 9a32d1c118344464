"""Towers of ids as functions of the vectors that their tokens are read as.

Ids have no gradient; the vectors that a tower looks up for them in its table have. Here every token
of a batch has a row of its own in that table, so that a score has a gradient for each token.

Decided here: the table is the tower's one parameter called `embedding`, as in flax's `Embed`, and
has `vocab_size` or `buckets` rows. A tower with `buckets` counts equal tokens of a record, so these
share one row, the mean of their vectors, and the gradient.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from data_pipelines.errors import InputError
from mmcl.evals.input_scores import Score, encoder

ROWS = ("vocab_size", "buckets")  # how towers call the length of their table


def of_vectors(
    tower: nn.Module, dtype: Any, params: Any, inputs: Mapping[str, Any], prefix: int | None = None
) -> tuple[Score, jax.Array]:
    """(vectors_BxLxD -> z_BxD unit rows of so many leading dimensions, the vectors as they are).

    Args:
        inputs: `value` (B, L) ids, `mask` (B, L).

    Raises:
        InputError: the tower has no such table.
    """
    flat, rows = flatten_dict(params), [name for name in ROWS if hasattr(tower, name)]
    tables = [path for path in flat if path[-1] == "embedding"]
    if len(tables) != 1 or len(rows) != 1:
        raise InputError(
            f"{type(tower).__module__} has no one table 'embedding' of 'vocab_size' or 'buckets' "
            "rows, by which tokens would be explained"
        )
    table_VxD = flat[tables[0]]
    batch, length = inputs["value"].shape
    id_BxL = inputs["value"] % len(table_VxD)
    own_BxL = jnp.arange(batch * length).reshape(batch, length)
    if rows == ["buckets"]:
        own_BxL = own_BxL[:, :1] + _first(id_BxL, inputs["mask"])
    row_N = own_BxL.reshape(-1)
    times_Nx1 = jnp.bincount(row_N, length=batch * length)[:, None]

    def encode(vector_BxLxD: jax.Array) -> jax.Array:
        vector_NxD = vector_BxLxD.reshape(batch * length, -1)
        mean_NxD = jax.ops.segment_sum(vector_NxD, row_N, batch * length) / jnp.maximum(
            times_Nx1, 1
        )
        own = unflatten_dict({**flat, tables[0]: mean_NxD})
        longer = tower.clone(**{rows[0]: batch * length})
        return encoder(longer, dtype, own, inputs, prefix)(own_BxL)

    return encode, table_VxD[id_BxL].astype(jnp.float32)


def _first(id_BxL: jax.Array, mask_BxL: jax.Array) -> jax.Array:
    """The place of the first token of the record that is equal and there; padding is its own."""
    place_L = jnp.arange(id_BxL.shape[1])
    known_BxL = jnp.where(mask_BxL, id_BxL, -1 - place_L)
    return jnp.argmax(known_BxL[:, :, None] == known_BxL[:, None, :], axis=-1)
