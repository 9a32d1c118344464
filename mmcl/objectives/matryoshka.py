"""Matryoshka representations (MRL): the first m numbers of an embedding are an embedding.

    <a>_<b>_<m>   weight_m · InfoNCE_i of s_ij = scale · cos(a_i[:m], b_j[:m]),   for every prefix m

Paper: P087, Kusupati et al. 2022 (Matryoshka representation learning), as for ALIGN there: the loss
of the whole embedding for each of its prefixes, brought to length one by itself.

Decided here: one learned scale for all prefixes, each prefix a term of its own, and otherwise as
`mmcl.objectives.infonce`.

One pass over the pairs. The product of a prefix is that of the one before it and of what lies
between, so all of them take what the longest takes: 4·B·B·D multiply-adds forward and backward.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding
from mmcl.objectives.side import side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the nested loss.

    Attributes:
        prefixes: lengths of the embeddings within the embedding, rising, the last at most D.
        weights: factor of each prefix; None: 1 for all.
        pairs: pairs of modalities that are contrasted, a term for each prefix.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    prefixes: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    init_scale: float = 1 / 0.07
    max_scale: float | None = 100.0

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {"log_scale": jnp.float32(math.log(self.init_scale))}

    def init_state(self, key: jax.Array) -> None:
        return None

    def __call__(
        self,
        params: dict[str, Any],
        state: None,
        embeddings: Mapping[str, Embedding],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> Result:
        """See Objective.

        Raises:
            InputError: prefixes that do not rise from 1 or more to at most D, or not as many
                weights.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        terms: dict[str, Term] = {}
        for a, b in self.pairs:
            rows, cols = side(embeddings, batch, a), side(embeddings, batch, b)
            terms |= self._terms(f"{a}_{b}", rows, cols, scale)
        return Result(terms, None, {"logit_scale": scale})

    def _terms(
        self, pair: str, rows: dict[str, jax.Array], cols: dict[str, jax.Array], scale: jax.Array
    ) -> dict[str, Term]:
        weights = self._weights(rows["z"].shape[1])
        reductions = {}
        for m in weights:
            reductions[f"row {m}"] = Reduce("logsumexp", f"logit {m}", "row")
            reductions[f"col {m}"] = Reduce("logsumexp", f"logit {m}", "col")
            reductions[f"own {m}"] = Reduce("sum", f"own {m}", "row")
        tile = partial(_tile, prefixes=tuple(weights))
        stats = pair_reduce(tile, rows, cols, reductions, scale)
        both_B = rows["present"] & cols["present"]
        terms = {}
        for m, weight in weights.items():
            value_B = 0.5 * (stats[f"row {m}"] + stats[f"col {m}"]) - stats[f"own {m}"]
            value_B = jnp.where(both_B, weight * value_B, 0.0)
            terms[f"{pair}_{m}"] = Term(value_B, both_B.astype(jnp.float32))
        return terms

    def _weights(self, D: int) -> dict[int, float]:
        """Prefix -> weight."""
        prefixes = tuple(self.prefixes)
        rising = all(a < b for a, b in itertools.pairwise((0, *prefixes)))
        if not prefixes or not rising or prefixes[-1] > D:
            raise InputError(
                f"config.objective.prefixes: {prefixes} should rise from 1 or more to at most {D}, "
                "the width of the embeddings."
            )
        weights = [1.0] * len(prefixes) if self.weights is None else self.weights
        if len(weights) != len(prefixes):
            raise InputError(
                f"config.objective.weights: {len(weights)} of them, for {len(prefixes)} prefixes."
            )
        return dict(zip(prefixes, weights))


def _tile(
    row: Any, col: Any, scale: Any, at: At, *, prefixes: tuple[int, ...]
) -> dict[str, jax.Array]:
    present = row["present"][:, None] & col["present"]
    own = at.row[:, None] == at.col
    dot: Any = 0.0
    row_square: Any = 0.0
    col_square: Any = 0.0
    terms = {}
    for start, stop in itertools.pairwise((0, *prefixes)):
        row_part, col_part = row["z"][:, start:stop], col["z"][:, start:stop]
        dot += row_part @ col_part.T
        row_square += jnp.sum(row_part * row_part, axis=1)
        col_square += jnp.sum(col_part * col_part, axis=1)
        row_scale = scale * _inverse_root(row_square)
        logit = dot * row_scale[:, None] * _inverse_root(col_square)
        terms[f"logit {stop}"] = jnp.where(present, logit, -jnp.inf)
        terms[f"own {stop}"] = jnp.where(own, logit, 0.0)
    return terms


def _inverse_root(square: jax.Array) -> jax.Array:
    """1/√square; 0, with no gradient, of nothing."""
    zero = square < jnp.finfo(square.dtype).tiny
    return jnp.where(zero, 0.0, jax.lax.rsqrt(jnp.where(zero, 1.0, square)))
