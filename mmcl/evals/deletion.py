"""Whether a saliency map is faithful: what becomes of the score as parts are taken out, and come.

Deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421): the mean score on the way from the
input to nothing, and from nothing to the input, with parts changed in order of the map, the most
salient first. Low deletion and high insertion are good.

Decided here: 16 steps of equally many parts, summed up by the trapezoidal rule. Parts of equal
saliency come in random order, and only parts that are there count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

STEPS = 16


def ranked(map_of: jax.Array, chance: jax.Array, there: jax.Array) -> jax.Array:
    """Of each part, 0 for the most salient, and those that are not there last: int32.

    Args:
        map_of, chance, there: (B, *places); of equal parts that of the least chance is first.
    """
    flat = (x.reshape(len(x), -1) for x in (chance, -map_of, ~there))
    order_BxP = jnp.lexsort(tuple(flat), axis=-1)  # by the last of these first
    return jnp.argsort(order_BxP, axis=-1).reshape(map_of.shape)


def deletion_and_insertion(
    without: Callable[[jax.Array], jax.Array], rank: jax.Array, there: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean scores on the way there and back: (B,) each.

    Args:
        without: the parts that are taken out, (B, *places) bool -> score_B.
        rank: of `ranked`.
        there: (B, *places) bool.
    """
    parts = there.sum(axis=range(1, there.ndim), keepdims=True)

    def at(step: jax.Array, back: jax.Array) -> jax.Array:
        first = rank * STEPS < step * parts
        return without(jnp.where(back, there & ~first, first))

    steps = jnp.meshgrid(jnp.arange(STEPS + 1), jnp.array([False, True]), indexing="ij")
    score_KxB = jax.lax.map(lambda one: at(*one), tuple(x.reshape(-1) for x in steps))
    weight_K = jnp.ones(STEPS + 1).at[jnp.array([0, STEPS])].set(0.5) / STEPS
    return weight_K @ score_KxB[::2], weight_K @ score_KxB[1::2]
