"""How much a tile takes of a chip, and how large a tile therefore is."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from pallas_kernels.pair_reduce import blocks, on_chip, pallas_tpu
from pallas_kernels.pair_reduce.on_chip import CHIPS, chip, device_kind, live_bytes, tiled_bytes
from pallas_kernels.pair_reduce.types import At

R, C, D = 16, 8, 4


def numbers(shape, dtype):
    """Numbers in an array: one byte each."""
    return math.prod(shape)


def arguments(dtype=jnp.float32):
    row, col = (jax.ShapeDtypeStruct((size, D), dtype) for size in (R, C))
    at = At(*(jax.ShapeDtypeStruct((size,), jnp.int32) for size in (R, C)))
    return row, col, jax.ShapeDtypeStruct((), jnp.float32), at


def peak(function, *shapes):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return on_chip._peak(jax.make_jaxpr(function)(*args).jaxpr, numbers)


def test_what_is_no_longer_needed_takes_nothing():
    assert peak(lambda x: x + 1, (10,)) == 10
    assert peak(lambda x: jnp.sin(jnp.cos(jnp.tan(x))), (10,)) == 20
    assert peak(lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(x)), (10,)) == 30
    assert peak(lambda x: jnp.sum(jnp.sin(x)) + jnp.sum(jnp.cos(x)), (10,)) == 12


def test_what_is_used_late_is_held_until_then():
    def late(x):
        first = jnp.sin(x)
        return jnp.tan(jnp.cos(jnp.exp(x))) * first

    assert peak(late, (10,)) == 30


def test_an_array_seen_in_another_shape_takes_its_memory_as_long_as_that_is_used():
    def seen(x):
        y = jnp.sin(x)[:, None] * jnp.ones((1, 1))
        z = y[:, 0][None]
        return jnp.cos(jnp.tan(x)) + z

    def broadcast(x):
        y = jnp.broadcast_to(jnp.sin(x)[:, None], (10, 3))
        return jnp.exp(jnp.cos(jnp.tan(x))), y

    assert peak(broadcast, (10,)) == 30
    assert peak(seen, (10,)) >= 20


def test_a_program_inside_takes_its_memory_while_it_runs():
    @jax.jit
    def inner(x):
        return jnp.sum(jnp.sin(x)[:, None] * jnp.cos(x), axis=1)  # 10 + 10 + 100, then 10

    assert peak(inner, (10,)) == 120
    assert peak(lambda x: inner(x) + jnp.tan(x), (10,)) == 120
    assert peak(lambda x: jnp.tan(x) + inner(x), (10,)) == 130


def test_a_tile_and_its_derivative_are_counted():
    def tile(row, col, params, at):
        return {"s": params * (row @ col.T)}

    # The product, the term, its cotangent, that of the product, and what sums up to d_params.
    assert live_bytes(tile, *arguments(), numbers) == 5 * R * C
    assert live_bytes(tile, *arguments(jnp.bfloat16), numbers) == 5 * R * C

    def flags(row, col, params, at):
        return {"s": row @ col.T, "same": at.row[:, None] == at.col}

    assert live_bytes(flags, *arguments(), numbers) >= 2 * R * C


@pytest.mark.parametrize(
    "shape, dtype, size",
    [
        ((), "float32", 8 * 128 * 4),
        ((9,), "float32", 16 * 128 * 4),
        ((1, 9), "float32", 8 * 128 * 4),
        ((9, 129), "float32", 16 * 256 * 4),
        ((8, 128), "bool", 8 * 128 * 4),
        ((8, 128), "bfloat16", 8 * 128 * 4),
        ((8, 128), "float64", 8 * 128 * 8),
        ((9, 5, 7), "float32", 9 * 5 * 7 * 4),
    ],
)
def test_a_matrix_takes_whole_words_of_vmem(shape, dtype, size):
    assert tiled_bytes(shape, jnp.dtype(dtype)) == size


def test_a_chip_that_is_not_known_is_the_smallest_of_its_platform():
    for platform, chips in (("tpu", "TPU"), ("gpu", "NVIDIA")):
        unknown = chip("some device to come", platform)
        assert unknown.on_chip == min(c.on_chip for k, c in CHIPS.items() if k.startswith(chips))
    assert chip("TPU v5e", "tpu") == chip("TPU v5 lite", "tpu") == CHIPS["TPU v5 lite"]
    assert chip("cpu", "gpu").on_chip == 256 << 10


def on(kind):
    """A mesh of devices of a kind that need not be there."""
    device = AbstractDevice(kind, 1, "tpu")
    mesh = AbstractMesh((2,), ("data",), (AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def test_the_device_is_that_of_the_mesh_in_the_context():
    assert device_kind() == jax.devices()[0].device_kind
    with on("TPU v6 lite"):
        assert device_kind() == "TPU v6 lite"
        assert pallas_tpu.vmem() == 96 << 20
    with jax.set_mesh(jax.make_mesh((2,), ("data",), (AxisType.Auto,))):
        assert device_kind() == jax.devices()[0].device_kind


def product(row, col, scale, at):
    return {"s": scale * (row @ col.T)}


def tokens(row, col, scale, at):
    return {"s": jnp.einsum("rtd,cud->rtcu", row, col).max(3).mean(1)}


def chosen(tile, *inner, n=4096):
    side = jax.ShapeDtypeStruct((n, *inner), jnp.float32)
    return blocks.choose(tile, side, side, jnp.float32(1), "pallas_tpu"), side


def area(tile, *inner):
    (r, c), _ = chosen(tile, *inner)
    return r * c


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite"])
@pytest.mark.parametrize("tile, inner", [(product, (512,)), (product, (4096,)), (tokens, (8, 64))])
def test_a_chosen_tile_fits_and_a_larger_one_would_not(kind, tile, inner):
    with on(kind):
        (r, c), side = chosen(tile, *inner)
        assert pallas_tpu.fits(*blocks._cut(tile, side, side, jnp.float32(1), r, c))
        assert r % pallas_tpu.SUBLANES == 0 and c % pallas_tpu.SUBLANES == 0
        larger = blocks._cut(tile, side, side, jnp.float32(1), 2 * r, 2 * c)
        assert max(r, c) == pallas_tpu.LARGEST or not pallas_tpu.fits(*larger)


def test_tiles_shrink_with_the_vectors_and_the_tokens():
    with on("TPU v4"):
        assert area(product, 256) > area(product, 2048) > area(product, 8192)
        assert area(tokens, 4, 64) > area(tokens, 16, 64) > area(tokens, 64, 64)


def test_no_tile_is_smaller_than_a_kernel_takes():
    with on("TPU v4"):
        for tile, inner in ((product, (1 << 20,)), (tokens, (128, 64))):
            (r, c), _ = chosen(tile, *inner)
            assert min(r, c) == pallas_tpu.SMALLEST
        assert chosen(product, 64, n=5)[0] == (5, 5)


def test_what_every_tile_sees_whole_takes_room():
    """A matrix, its gradient as it comes and as it goes, each twice: 12 or 192 MiB of 96."""

    def projected(row, col, w, at):
        return {"s": (row @ w) @ col.T}

    at = At(*(jax.ShapeDtypeStruct((64,), jnp.int32),) * 2)
    row = jax.ShapeDtypeStruct((64, 2048), jnp.float32)
    with on("TPU v6 lite"):
        for d, room in ((256, True), (4096, False)):
            col, w = (jax.ShapeDtypeStruct((n, d), jnp.float32) for n in (64, 2048))
            assert pallas_tpu.fits(projected, row, col, w, at) == room
