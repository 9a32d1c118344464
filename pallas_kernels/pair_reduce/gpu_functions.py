"""Functions that Triton does not have, or has otherwise, made of those that it has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Rational approximation of erf on [-4, 4], as in XLA and Eigen: x · P(x²) / Q(x²), highest first.
ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def erf(x: jax.Array, **params: Any) -> jax.Array:
    """Good to float32 rounding; float64 is left to the device."""
    if x.dtype == jnp.float64:
        return jax.lax.erf(x)
    inside = jnp.clip(x, -4.0, 4.0)
    square = inside * inside
    over, under = (_polynomial(coefficients, square) for coefficients in (ERF_P, ERF_Q))
    return jnp.where(jnp.isnan(x), x, inside * over / under)


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    total = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def rounded(x: jax.Array, *, rounding_method: jax.lax.RoundingMethod) -> jax.Array:
    """To the nearest whole number; halves away from zero, or to even ones."""
    whole = jnp.floor(jnp.abs(x))
    rest = jnp.abs(x) - whole
    up = rest >= 0.5
    if rounding_method == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        odd = whole - 2 * jnp.floor(whole / 2)
        up = (rest > 0.5) | ((rest == 0.5) & (odd == 1))
    return jnp.sign(x) * jnp.where(up, whole + 1, whole)


def maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    """The larger; NaN where either is."""
    return jnp.where((x > y) | (x != x), x, y)


def minimum(x: jax.Array, y: jax.Array) -> jax.Array:
    """The smaller; NaN where either is."""
    return jnp.where((x < y) | (x != x), x, y)


def select(which: jax.Array, *cases: jax.Array) -> jax.Array:
    """`lax.select_n`: of any number of cases."""
    if len(cases) == 2:
        return jax.lax.select_n(which, *cases)
    chosen = cases[0]
    for i, case in enumerate(cases[1:], 1):
        chosen = jnp.where(which == i, case, chosen)
    return chosen


INSTEAD: dict[str, Callable[..., jax.Array]] = {
    "erf": erf,
    "round": rounded,
    "max": maximum,
    "min": minimum,
    "select_n": select,
}
