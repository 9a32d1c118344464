"""Products counted from traced programs, by hand for each way a program can be built."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from pallas_kernels.pair_reduce.flops import products

A = jax.ShapeDtypeStruct((6, 5), jnp.float32)
B = jax.ShapeDtypeStruct((4, 5), jnp.float32)
UNIT = 2.0 * 6 * 5 * 4


def once(a, b):
    return jnp.sum(a @ b.T)


@jax.custom_vjp
def own_gradient(a, b):
    return once(a, b)


own_gradient.defvjp(
    lambda a, b: (once(a, b), (a, b)),
    lambda kept, g: tuple(x * 0 + once(*kept) for x in kept),  # a product each
)


def sharded(a, b):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P("data"), P()), "out_specs": P("data")}
    return jax.shard_map(lambda a, b: a @ b.T, mesh=mesh, **specs)(a, b)


def kernel(a, b):
    def body(a, b, out):
        out[...] = a[...] @ b[...].T

    call = pl.pallas_call(
        body,
        grid=(3,),
        in_specs=[pl.BlockSpec((2, 5), lambda i: (i, 0)), pl.BlockSpec((4, 5), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((2, 4), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((6, 4), jnp.float32),
        interpret=True,
    )
    return call(a, b)


PROGRAMS = {
    "one": (once, 1),
    "inside a jit": (jax.jit(once), 1),
    "forward and backward": (jax.value_and_grad(once, (0, 1)), 3),
    "a loop of 7": (lambda a, b: jax.lax.fori_loop(0, 7, lambda i, x: x + once(a, b), 0.0), 7),
    "loops of 3 and 4": (
        lambda a, b: jax.lax.scan(
            lambda x, _: (jax.lax.fori_loop(0, 4, lambda i, y: y + once(a, b), x), None),
            0.0,
            length=3,
        )[0],
        12,
    ),
    "a loop of unknown length": (
        lambda a, b: jax.lax.while_loop(lambda x: x < 9, lambda x: x + once(a, b), 0.0),
        1,
    ),
    "the dearer branch": (
        lambda a, b: jax.lax.cond(
            a[0, 0] > 0, once, lambda a, b: 2 * once(a, b) + once(b, a), a, b
        ),
        2,
    ),
    "own gradient, not asked for": (own_gradient, 1),
    "own gradient": (jax.value_and_grad(own_gradient, (0, 1)), 3),
    "outer products": (lambda a, b: jnp.einsum("nd,md->nmd", a, b), 1),
    "batched": (lambda a, b: jnp.einsum("xnd,xmd->xnm", a[None], b[None]), 1),
    "two devices": (sharded, 1),
    "a kernel": (kernel, 1),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_products(program: str) -> None:
    function, count = PROGRAMS[program]
    assert products(function, A, B, unit=UNIT) == pytest.approx(count)


def test_a_side_that_is_locked_costs_no_product() -> None:
    assert products(partial(jax.grad(once), jnp.ones(A.shape)), B, unit=UNIT) == 2
