"""Symmetric softmax with a queue of past embeddings as further negatives.

    value_i = ½ [ log(Σ_j e^{s(a_i, b_j)} + Σ_k e^{s(a_i, past b_k)}) − s(a_i, b_i) ] + ½ [ a ↔ b ]

Paper: P230, Huo et al. 2021 (BriVL), of which this is the queue of each modality; its keys come
from momentum encoders. Source of the queue is He et al. 2020 (MoCo); that of keeping the embeddings
of the model itself in it, without a momentum encoder, Wang et al. 2020 (cross-batch memory).

Decided here: the batch is contrasted first and enters the queue afterwards, without a gradient; a
record that lacks a modality takes a place in that queue which never counts; otherwise as
`mmcl.objectives.infonce`. The queue is laid out so that the entry of batch position i stands with
position i (`length / B` places each): on a mesh every device writes only into its own part.

Three passes over pairs: 4·B·B·D multiply-adds, and 3·B·length·D for each of the two queues, whose
entries have no gradient.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding, unit
from mmcl.objectives.side import cosine, side
from mmcl.objectives.temperature import logit_scale
from mmcl.objectives.term import Result, Term
from pallas_kernels.pair_reduce import At, Reduce, pair_reduce

Leaves = dict[str, jax.Array]  # of one side of the grid: z, present and perhaps label


@dataclasses.dataclass(frozen=True)
class Objective:
    """Options of the softmax with a queue.

    Attributes:
        embed_dim: width of the shared space; given by the experiment.
        length: entries of the queue of each modality, a multiple of the batch size.
        pairs: pairs of modalities that are contrasted, one term each.
        positives: name of a label of the batch (`"concept"`; `"index"` for the record itself): of
            those that share it, in the batch and in the queue, none is a negative of another. None:
            everything but the own pair is a negative.
        init_scale: first value of the learned logit scale 1/τ.
        max_scale: its upper bound; None for none.
    """

    embed_dim: int
    length: int = 4096
    pairs: tuple[tuple[str, str], ...] = (("image", "text"),)
    positives: str | None = None
    init_scale: float = 1 / 0.07
    max_scale: float | None = 100.0

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {"log_scale": jnp.float32(math.log(self.init_scale))}

    def init_state(self, key: jax.Array) -> dict[str, Any]:
        """An empty queue a modality: leaves of a side, (length, ...); `slot` is written next."""
        empty = {
            "z": jnp.zeros((self.length, self.embed_dim), jnp.float32),
            "present": jnp.zeros(self.length, bool),
        }
        if self.positives is not None:
            empty["label"] = jnp.zeros(self.length, jnp.int32)
        modalities = sorted({modality for pair in self.pairs for modality in pair})
        return {
            "queue": {m: jax.tree.map(jnp.copy, empty) for m in modalities},
            "slot": jnp.int32(0),
        }

    def __call__(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        embeddings: Mapping[str, Embedding],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> Result:
        """See Objective.

        Raises:
            InputError: `length` is no multiple of the batch size.
        """
        scale = logit_scale(params["log_scale"], self.max_scale)
        queue = state["queue"]
        sides = {m: side(embeddings, batch, m, self.positives) for m in queue}
        terms = {
            f"{a}_{b}": _term(sides[a], sides[b], queue[a], queue[b], scale) for a, b in self.pairs
        }
        filled = jnp.mean(jnp.stack([jnp.mean(q["present"]) for q in queue.values()]))
        metrics = {"logit_scale": scale, "queue_filled": filled}
        return Result(terms, self._enqueued(state, sides), metrics)

    def _enqueued(self, state: dict[str, Any], sides: dict[str, Leaves]) -> dict[str, Any]:
        """The state with this batch in place of the oldest one."""
        size = len(next(iter(sides.values()))["present"])
        slots = self.length // size
        if not slots or self.length % size:
            raise InputError(
                f"config.objective.length: {self.length} should be a multiple of the batch size, "
                f"{size}."
            )

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            by_slot = old.reshape(size, slots, *old.shape[1:])
            new = jax.lax.stop_gradient(new).astype(old.dtype)
            by_slot = jax.lax.dynamic_update_index_in_dim(by_slot, new, state["slot"], axis=1)
            return by_slot.reshape(old.shape)

        sides = {m: {**leaves, "z": unit(leaves["z"])} for m, leaves in sides.items()}
        queue = jax.tree.map(put, state["queue"], sides)
        return {"queue": queue, "slot": (state["slot"] + 1) % slots}


def _term(
    rows: Leaves, cols: Leaves, past_rows: Leaves, past_cols: Leaves, scale: jax.Array
) -> Term:
    both_B = rows["present"] & cols["present"]
    per_row = {"row": Reduce("logsumexp", "logit", "row")}
    per_col = {"col": Reduce("logsumexp", "logit", "col")}
    own = {"own": Reduce("sum", "own", "row")}
    now = pair_reduce(_tile, rows, cols, per_row | per_col | own, scale)
    row = pair_reduce(_past_tile, rows, past_cols, per_row, scale)["row"]
    col = pair_reduce(_past_tile, cols, past_rows, per_row, scale)["row"]
    lse_B = jnp.logaddexp(now["row"], row) + jnp.logaddexp(now["col"], col)
    value_B = jnp.where(both_B, 0.5 * lse_B - now["own"], 0.0)
    return Term(value_B, both_B.astype(jnp.float32))


def _tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    logit = scale * cosine(row["z"], col["z"])
    own = at.row[:, None] == at.col
    counts = row["present"][:, None] & col["present"]
    if "label" in row:
        counts &= (row["label"][:, None] != col["label"]) | own
    return {"logit": jnp.where(counts, logit, -jnp.inf), "own": jnp.where(own, logit, 0.0)}


def _past_tile(row: Any, col: Any, scale: Any, at: At) -> dict[str, jax.Array]:
    counts = row["present"][:, None] & col["present"]
    if "label" in row:
        counts &= row["label"][:, None] != col["label"]
    logit = scale * (unit(row["z"]) @ col["z"].T)  # what is in the queue has length one
    return {"logit": jnp.where(counts, logit, -jnp.inf)}
