"""Memory from the compiled program, products from the traced one. Nothing here is run."""

import math
import os
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pallas_kernels.pair_reduce import Reduce, SoftmaxMean, TopK, choices, pair_reduce, pair_sum
from pallas_kernels.pair_reduce.flops import products

pytestmark = pytest.mark.usefixtures("optimized")
MIB = 1 << 20
SCALE = jax.ShapeDtypeStruct((), jnp.float32)


def vectors(n, d, mesh=None):
    sharding = mesh and NamedSharding(mesh, PartitionSpec("data"))
    return jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=sharding)


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])


def logits(row, col, scale, at):
    return {"logit": scale * (row @ col.T)}


def clip(x, y, scale, **options):
    asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col")}
    lse = pair_reduce(logits, x, y, asked, scale, **options)
    positive = scale * jnp.sum(x * y, axis=-1)
    return jnp.mean(0.5 * (lse["row"] + lse["col"]) - positive)


def pairwise(row, col, scale, at):
    logit = scale * (row @ col.T)
    return {"loss": jax.nn.softplus(jnp.where(at.row[:, None] == at.col, -logit, logit))}


def siglip(x, y, scale, **options):
    return pair_sum(pairwise, x, y, {"loss": 1.0}, scale, **options)[0] / len(x)


def compiled(loss, n, d, devices=1, **options):
    """The loss and its gradients for all arguments, which stay split as they are."""
    mesh = mesh_of(devices)
    with jax.set_mesh(mesh):
        split, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (("data",), ()))
        step = jax.jit(
            jax.value_and_grad(partial(loss, **options), argnums=(0, 1, 2)),
            out_shardings=(whole, (split, split, whole)),
        )
        return step.lower(vectors(n, d, mesh), vectors(n, d, mesh), SCALE).compile()


def temporary(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("loss", [clip, siglip])
def test_a_batch_of_16384_takes_little_beside_its_gradients(loss):
    assert temporary(compiled(loss, 16384, 512)) <= 64 * MIB


@pytest.mark.parametrize("comm", ["ring", "hierarchical"])
def test_a_devices_memory_does_not_grow_with_the_devices(comm):
    four, eight = (temporary(compiled(clip, 1024 * k, 512, k, comm=comm)) for k in (4, 8))
    assert eight <= min(1.01 * four, 11 * MIB)


@pytest.mark.long
def test_a_devices_memory_does_not_grow_up_to_32_devices():
    program = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("costs", sys.argv[1])
costs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(costs)
print(*(costs.temporary(costs.compiled(costs.clip, 1024 * k, 512, k)) for k in (4, 8, 16, 32)))
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=32", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
        [sys.executable, "-c", program, __file__],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    took = [int(word) for word in ran.stdout.split()]
    assert len(took) == 4 and max(took) <= min(1.01 * took[0], 11 * MIB), took


def largest_buffer(program):
    """Elements of the largest array in the optimised program."""
    shapes = re.findall(r"\b(?:f|s|u|bf|pred)\d*\[([\d,]+)\]", program.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


@pytest.mark.parametrize("loss", [clip, siglip])
@pytest.mark.parametrize("devices, n", [(1, 3001), (8, 3016)])
def test_no_array_is_as_large_as_a_grid_of_pairs(loss, devices, n):
    once, twice = (compiled(loss, k * n, 64, devices) for k in (1, 2))
    assert largest_buffer(once) < n * n / devices / 4
    assert largest_buffer(twice) < 4 * n * n / devices / 4
    assert temporary(twice) <= 2.2 * temporary(once)


def test_the_search_for_large_arrays_finds_them():
    def dense(x, y, scale, **options):
        return clip(x, y, scale, impl="reference")

    assert largest_buffer(compiled(dense, 301, 8)) >= 301 * 301


# Products, in units of n·m·D.

N, M, D = 4096, 2048, 64
ARGUMENTS = vectors(N, D), vectors(M, D), SCALE
count = partial(products, unit=2.0 * N * M * D)


def symmetric(x, y, scale, **options):
    asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col")}
    return sum(s.sum() for s in pair_reduce(logits, x, y, asked, scale, **options).values())


def locked(x, y, scale):
    return symmetric(x, jax.lax.stop_gradient(y), scale)


def test_symmetric_softmax_takes_four_products_and_one_where_nobody_differentiates():
    assert count(symmetric, *ARGUMENTS) == 1
    assert count(jax.value_and_grad(symmetric, (0, 1, 2)), *ARGUMENTS) == 4


@pytest.mark.parametrize(
    "step",
    [
        jax.grad(symmetric, (0, 2)),
        jax.grad(symmetric, 1),
        jax.grad(locked, (0, 1, 2)),
        jax.jit(jax.grad(jax.jit(locked), (0, 1, 2))),
        jax.jit(lambda x, y, s: jax.grad(lambda x: jax.jit(symmetric)(x, y, s))(x)),
    ],
)
def test_a_locked_side_saves_a_product(step):
    assert count(step, *ARGUMENTS) == 3


def test_a_locked_side_saves_its_product_where_the_loss_is_rematerialised():
    remat = jax.checkpoint(locked)
    assert count(jax.grad(remat, (0, 1)), *ARGUMENTS) == 3 + 1  # the forward pass again


def test_gradients_of_params_alone_take_no_product_of_their_own():
    assert count(jax.grad(symmetric, 2), *ARGUMENTS) == 2


def test_pair_sum_takes_three_products_and_one_where_nobody_differentiates():
    assert count(siglip, *ARGUMENTS) == 1
    assert count(jax.value_and_grad(siglip, (0, 1, 2)), *ARGUMENTS) == 3
    assert count(jax.value_and_grad(siglip, 0), *ARGUMENTS) == 2


@pytest.mark.parametrize("comm", ["ring", "gather"])
def test_devices_share_the_products(comm):
    with jax.set_mesh(mesh_of(8)):
        assert count(jax.grad(partial(symmetric, comm=comm), (0, 1)), *ARGUMENTS) == 4


def test_winners_cost_no_product():
    def mined(x, y, scale):
        found = pair_reduce(logits, x, y, {"best": Reduce(TopK(4), "logit", "row")}, scale)
        return found["best"].value.sum()

    assert count(mined, *ARGUMENTS) == 1
    assert count(jax.grad(mined, (0, 1)), *ARGUMENTS) == 4


def hops(loss, *arguments):
    """How many arrays are sent onward in a compiled program."""
    with jax.set_mesh(mesh_of(4)):
        text = jax.jit(loss).lower(*arguments).compile().as_text()
    return len(re.findall(r"= [^=\n]* collective-permute(?:-start)?\(", text))


def test_a_locked_leaf_has_no_gradient_that_travels():
    """Columns move. A gradient would go on with them in the loop and home at its end."""

    def tile(row, col, params, at):
        return {"logit": row @ col["z"].T + col["teacher"]}

    def loss(x, z, teacher):
        asked = {"lse": Reduce("logsumexp", "logit", "row")}
        return pair_reduce(tile, x, {"z": z, "teacher": teacher}, asked)["lse"].sum()

    x, z = vectors(64, 8), vectors(32, 8)
    teacher = jax.ShapeDtypeStruct((32,), jnp.float32)
    none, one, both = (
        hops(jax.grad(loss, which), x, z, teacher) for which in (0, (0, 1), (0, 1, 2))
    )
    assert (one - none, both - one) == (2, 2)


def test_nobody_computes_or_sends_a_gradient_that_is_not_asked_for():
    forward = partial(symmetric, comm="ring")
    x, y = vectors(64, 8), vectors(32, 8)
    with jax.set_mesh(mesh_of(4)):
        jaxpr = str(jax.make_jaxpr(jax.jit(forward))(x, y, SCALE))
    assert hops(forward, x, y, SCALE) < hops(jax.grad(forward, (0, 1)), x, y, SCALE)
    assert jaxpr.count("dot_general") == 2  # the first block's loop, and the last's


def test_a_tile_of_tokens_gets_small_blocks_by_itself():
    """FILIP's tile holds (r, T, c, T) similarities."""

    def late(row, col, params, at):
        grid = jnp.einsum("rtd,cud->rtcu", row, col)
        return {"score": grid.max(axis=3).mean(axis=1)}

    def loss(x, y):
        asked = {per: Reduce("logsumexp", "score", per) for per in ("row", "col")}
        return sum(s.sum() for s in pair_reduce(late, x, y, asked).values())

    tokens = jax.ShapeDtypeStruct((4096, 32, 64), jnp.float32)
    with choices() as made:
        program = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(tokens, tokens).compile()
    (choice,) = made.values()
    r, c = choice["blocks"]
    assert min(r, c) >= 8 and r * c * 32 * 32 * 4 <= 4 * MIB
    assert temporary(program) <= 64 * MIB  # the whole grid of tokens would be 64 GiB


def test_an_average_of_vectors_is_never_a_grid():
    def loss(x, y, scale):
        mean = {"mean": Reduce(SoftmaxMean("z"), "logit", "row")}

        def tile(row, col, scale, at):
            return logits(row, col["z"], scale, at)

        return jnp.sum(pair_reduce(tile, x, {"z": y}, mean, scale)["mean"] ** 2)

    assert largest_buffer(compiled(loss, 3001, 64)) < 3001**2 / 4
