"""Cross-modal retrieval by late interaction: each part of a query looks for its best part in every
item of the gallery.

    s(q, g) = mean_{t∈q} max_{u∈g} cos(t, u)

Source: Yao et al. 2021 (P139), in the very arithmetic of `mmcl/objectives/filip.py`. Every item is
encoded once, to tokens that the host keeps; the pair engine then scores all pairs tile by tile, so
that beside the tokens memory is O(N).

Decided here: both ways the score is that of the query's own parts. A query without any part ties
with the whole gallery, and an item without any comes after all others. `pairs.py` says what becomes
of ties.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals import pairs as all_pairs
from mmcl.evals.batches import batches
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures
from mmcl.evals.retrieval import answered, items
from mmcl.mesh import split_whole_batch, whole
from mmcl.model import Model
from mmcl.models.towers import Towers
from mmcl.objectives.filip import similarities


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval between the distinct items of every two modalities, by their tokens.

    Args:
      embedded: the split.
      model: encodes the items again, for `embedded` has no tokens.
      pairs: (from, to) modalities; all ordered pairs by default.
      label: items with the same value are right answers of each other.
      at: the K of recall@K.

    Returns:
      What `retrieval` tells, by the same names: list one of the two.

    Raises:
      InputError: a tower gives no tokens, or they are not finite.
    """
    if pairs is None:
        pairs = list(itertools.permutations(embedded.z, 2))
    for from_, to in pairs:
        if from_ == to:
            raise InputError(
                f"retrieval from '{from_}' to itself finds the query: name another modality"
            )
    sides: dict[str, tuple[all_pairs.Side, np.ndarray]] = {}  # and the labels of its items
    for modality in dict.fromkeys(itertools.chain.from_iterable(pairs)):
        record = items(embedded, modality, label)
        tokens_NxTxD, mask_NxT = tokens(embedded, model, modality, record)
        label_N = embedded.labels[label][record]
        sides[modality] = all_pairs.side(tokens_NxTxD, label_N, mask=mask_NxT), label_N
    figures: Figures = {}
    for from_, to in pairs:
        (rows, label_Q), (cols, label_G) = sides[from_], sides[to]
        rank_Q = all_pairs.ranked(rows, cols, late)[: len(label_Q)]
        for metric, figure in answered(rank_Q, label_Q, label_G, at).items():
            figures[f"{from_}_to_{to}/{metric}"] = figure
    return figures


def tokens(
    embedded: Embedded, model: Model, modality: str, record_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of these records (N, T, D), float32 of any length, and which are there (N, T)."""
    parts = []
    for batch in batches(embedded, model, record_N):
        with jax.set_mesh(model.mesh):
            found = _tokens(
                model.params[modality],
                split_whole_batch(dict(batch.inputs[modality]), model.mesh),
                modality=modality,
                tower=model.towers.modules[modality],
                dtype=model.towers.dtype,
                prefix=model.prefix,
            )
        parts.append([x[: batch.real] for x in jax.device_get(found)])
    tokens_NxTxD, mask_NxT = (np.concatenate(of_batches) for of_batches in zip(*parts))
    if not np.isfinite(tokens_NxTxD[mask_NxT]).all():
        raise InputError(
            f"some '{modality}' tokens are NaN or infinite: the model diverged; resume an earlier "
            "checkpoint at a lower learning rate"
        )
    return tokens_NxTxD, mask_NxT


@functools.partial(jax.jit, static_argnames=("modality", "tower", "dtype", "prefix"))
def _tokens(
    params: Any, inputs: Any, *, modality: str, tower: nn.Module, dtype: Any, prefix: int | None
) -> tuple[jax.Array, jax.Array]:
    """Whole on every device."""
    towers = Towers({modality: tower}, dtype)
    embedding = towers.encode({modality: params}, modality, inputs, train=False)
    tokens_BxTxD, mask_BxT = embedding.tokens, embedding.mask
    if tokens_BxTxD is None:
        raise InputError(
            f"late_interaction: the tower of '{modality}' gives no tokens; leave it out of "
            "'pairs', or judge by 'retrieval'"
        )
    if mask_BxT is None:
        mask_BxT = jnp.ones(tokens_BxTxD.shape[:2], bool)
    return whole(tokens_BxTxD[..., :prefix].astype("float32")), whole(mask_BxT)


def late(row: all_pairs.Side, col: all_pairs.Side) -> jax.Array:
    """The rows' tokens look among the columns'; −inf where a side is filling."""
    from_row, _ = similarities(
        {"tokens": row["z"], "mask": row["mask"]}, {"tokens": col["z"], "mask": col["mask"]}
    )
    return jnp.where(row["real"][:, None] & col["real"], from_row, -jnp.inf)
