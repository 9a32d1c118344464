"""Noise that is a pure function of (key, global row, global column): the same on every mesh."""

import jax
import jax.numpy as jnp


def gumbel(words: jax.Array, row_R: jax.Array, col_C: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Standard Gumbel noise (r, c) for the pairs of two vectors of int32 positions.

    Every pair has a 64-bit counter (row, column) that is hashed with the words of the key; nothing
    of the block, the device or the order of evaluation enters.

    Args:
        words: the words of a PRNG key, uint32 (`jax.random.key_data`).
    """
    row_Rx1 = mixed(row_R.astype(jnp.uint32) ^ words[0])[:, None]
    col_1xC = mixed(col_C.astype(jnp.uint32) + jnp.uint32(0x9E3779B9))[None, :]
    bits_RxC = mixed(mixed(row_Rx1 + words[-1]) ^ (col_1xC * jnp.uint32(0x85EBCA6B)))
    u_RxC = (bits_RxC >> 9).astype(jnp.float32) * 2.0**-23 + 2.0**-24  # in (0, 1), never 0 or 1
    return -jnp.log(-jnp.log(u_RxC.astype(dtype)))


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit moves half of the output bits.

    The multiply-xorshift finaliser with the constants that Ellis (2018, "hash-prospector") found.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
