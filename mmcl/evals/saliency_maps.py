"""Maps of how much each part of an input has to do with a score, by several methods.

    integrated gradients(x) = (x - b) · mean over t of ds/dx at b + t (x - b),  t in [0, 1]
    gradient × input(x)     = x · ds/dx
    Grad-CAM_u = relu( sum_c a_c A_uc ),  a_c = mean over places u of ds/dA_uc
    NormGrad_u = || A_u || · || ds/dA_u ||

with A_uc what channel c of a layer gives at place u. Integrated gradients are those of Sundararajan
et al. 2017 (arXiv 1703.01365), and sum up to s(x) - s(b).

Paper: P267, P286, P331: Grad-CAM; NormGrad, with the norm of what each place adds to the gradient
       of a 1 × 1 convolution's weights; Captum, of which the other two are a part.

Decided here: the integral is Gauss and Legendre's. NormGrad of several layers, which P286 combines,
is the geometric mean of their maps, each brought to the input's size and to between 0 and 1.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl.evals.input_scores import Score, slopes


def integrated_gradients(
    score: Score, value: jax.Array, baseline: jax.Array, steps: int
) -> jax.Array:
    """In the shape of the values; each record's sum up to its score less that of its baseline."""

    at_S, weight_S = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]

    def add(total: jax.Array, at: Any) -> tuple[jax.Array, None]:
        t, weight = at
        return total + weight * slopes(score)(baseline + t * (value - baseline)), None

    nodes = (jnp.float32((1 + at_S) / 2), jnp.float32(weight_S / 2))
    total, _ = jax.lax.scan(add, jnp.zeros_like(value), nodes)
    return (value - baseline) * total


def gradient_x_input(score: Score, value: jax.Array) -> jax.Array:
    """In the shape of the values."""
    return value * slopes(score)(value)


def grad_cam(activation: jax.Array, slope: jax.Array) -> jax.Array:
    """Of a layer's (B, *grid, C): (B, *grid), 0 or more."""
    weight = slope.mean(axis=range(1, slope.ndim - 1), keepdims=True)
    return jax.nn.relu(jnp.sum(weight * activation, axis=-1))


def norm_grad(activation: jax.Array, slope: jax.Array) -> jax.Array:
    """Of a layer's (B, *grid, C): (B, *grid), 0 or more."""
    return jnp.linalg.norm(activation, axis=-1) * jnp.linalg.norm(slope, axis=-1)


def combined(maps: Sequence[jax.Array]) -> jax.Array:
    """The geometric mean of maps of equal size, each from 0 to 1 in every record."""
    scaled = jnp.stack([_scaled(map_of) for map_of in maps])
    return jnp.prod(scaled, axis=0) ** (1 / len(maps))


def random(index_B: jax.Array, seed: jax.Array, which: int, shape: Sequence[int]) -> jax.Array:
    """Uniform in [0, 1), by seed and record alone: (B, *shape)."""
    key = jax.random.fold_in(jax.random.key(seed), which)
    key_B = jax.vmap(functools.partial(jax.random.fold_in, key))(index_B)
    return jax.vmap(lambda key: jax.random.uniform(key, tuple(shape)))(key_B)


def resized(map_of: jax.Array, size: Sequence[int]) -> jax.Array:
    """(B, *grid) as large as the input, (B, *size), linearly along every axis."""
    return jax.image.resize(map_of, (len(map_of), *size), "linear", antialias=False)


def _scaled(map_of: jax.Array) -> jax.Array:
    """From the least, 0, to the greatest, 1, of each record."""
    axes = tuple(range(1, map_of.ndim))
    least, most = (f(map_of, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
    return (map_of - least) / jnp.where(most > least, most - least, 1.0)
