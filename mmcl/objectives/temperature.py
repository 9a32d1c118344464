"""The learned logit scale, kept in bounds."""

import math
from functools import partial

import jax
import jax.numpy as jnp


def logit_scale(log_scale: jax.Array, largest: float | None) -> jax.Array:
    """exp(log_scale), at most `largest`: the multiplier 1/τ of the cosines.

    At the bound the gradient passes only where a descent step leads back inside, so the parameter
    neither runs away nor sticks.
    """
    if largest is None:
        return jnp.exp(log_scale)
    return jnp.exp(_at_most(log_scale, math.log(largest)))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_most(x: jax.Array, bound: float) -> jax.Array:
    return jnp.minimum(x, bound)


def _forward(x: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
    return jnp.minimum(x, bound), x


def _backward(bound: float, x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x < bound) | (g > 0), g, 0.0),)


_at_most.defvjp(_forward, _backward)
