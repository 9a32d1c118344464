"""What an optimiser remembers of every parameter, kept in bfloat16 between steps: half the bytes.

A step widens it, computes in float32 as ever, and rounds what it keeps by chance: up with the
probability of the part that is cut off, so that the mean is right (stochastic rounding; Zamirai et
al. 2020, arXiv:2010.06192). Rounded to nearest, a second moment would stand still: b2 = 0.999 moves
it by a thousandth of the way, and half a unit in the last place of bfloat16 is two to four.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmcl.array_names import array_names
from pallas_kernels.pair_reduce.noise import mixed

Tree = Any


class Narrowed(NamedTuple):
    steps: jax.Array  # () int32, done: chances are new in each
    state: Any  # of the optimiser, its moments in bfloat16


def narrowed(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser, with its moments in bfloat16 between steps.

    A moment is a float array of the state that has the name and the shape of a parameter. Others
    (counts, the row and column means of Adafactor) are small and stay as they are. The first step
    is the same, for nothing was rounded before it. `update` needs the parameters.
    """

    def init(params: Tree) -> Narrowed:
        state = optimizer.init(params)
        narrow = jax.tree.map(
            lambda x, moment: x.astype(jnp.bfloat16) if moment else x, state, moments(state, params)
        )
        return Narrowed(jnp.int32(0), narrow)

    def update(updates: Tree, kept: Narrowed, params: Tree = None) -> tuple[Tree, Narrowed]:
        is_moment = moments(kept.state, params)
        wide = jax.tree.map(
            lambda x, moment: x.astype(jnp.float32) if moment else x, kept.state, is_moment
        )
        direction, state = optimizer.update(updates, wide, params)
        step = mixed(kept.steps.astype(jnp.uint32))
        numbers = itertools.count()  # of the arrays: each is rounded by chances of its own
        narrow = jax.tree.map(
            lambda x, moment: (
                stochastic_round(x, mixed(step + jnp.uint32(next(numbers)))) if moment else x
            ),
            state,
            is_moment,
        )
        return direction, Narrowed(kept.steps + 1, narrow)

    return optax.GradientTransformation(init, update)


def moments(state: Tree, params: Tree) -> Tree:
    """Which arrays of an optimiser's state are moments: a pytree of bool like it."""
    shapes = dict(
        zip(jax.tree.leaves(array_names(params)), map(jnp.shape, jax.tree.leaves(params)))
    )

    def is_moment(name: str, x: Any) -> bool:
        parts = name.split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        shape = next((shapes[end] for end in ends if end in shapes), None)
        return jnp.issubdtype(x.dtype, jnp.floating) and x.shape == shape

    return jax.tree.map(is_moment, array_names(state), state)


def stochastic_round(x: jax.Array, seed: jax.Array) -> jax.Array:
    """x, float, to one of its two neighbours in bfloat16, so that the mean of many is x.

    What bfloat16 holds, and what is not finite, stays as it is. The chance is a hash of the seed,
    () uint32, and the place in the array: the same however the array is cut over devices, and
    cheap beside a generator of random numbers.
    """
    x = x.astype(jnp.float32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for d, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, d)
    chance = mixed(mixed(place ^ seed) + seed) >> 16
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + chance  # carries as often as it should
    cut = jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), cut, x.astype(jnp.bfloat16))
