"""A batch in parts that are encoded one after the other, under a loss of the whole (GradCache).

Of every part only what comes out is kept; the backward pass encodes it again, with its part of the
loss's gradient. So the activations of one part are all that is there at a time, and every gradient
(towers, temperature, bias) is that of the whole batch.

Source: Gao et al. 2021 (GradCache), algorithm 1. Decided here: part m of k has the records m,
m + k, m + 2k, ... of the batch, so that on a mesh every device has a share of each part and no
example moves, and so that the parts are the same on any mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
from einops import rearrange

from mmcl.mesh import examples_split


def one_by_one(f: Callable[[Any], Any], batch: Any, k: int) -> Any:
    """What f makes of each of k parts of a batch, in parts: leaves (k, ...).

    Args:
        f: a pure function of a part; what else it reads may be differentiated, too.
        batch: leaves (B, ...), B a multiple of k.
    """

    def of_part(part: Any) -> Any:
        return f(jax.tree.map(examples_split, part))

    again = jax.checkpoint(of_part, prevent_cse=False)  # a loop's turns are never made one
    parts = jax.tree.map(lambda x: rearrange(x, "(b k) ... -> k b ...", k=k), batch)
    return jax.lax.map(again, parts)


def joined(parts: Any) -> Any:
    """Leaves (k, B/k, ...) as they lay in the batch: (B, ...)."""
    return jax.tree.map(lambda x: examples_split(rearrange(x, "k b ... -> (b k) ...")), parts)
