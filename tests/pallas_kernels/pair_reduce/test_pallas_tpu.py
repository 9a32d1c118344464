"""The TPU kernels on simulated TPUs, which see every race between a copy and a computation."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as simulation
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from pallas_kernels.pair_reduce import Reduce, pair_reduce, pair_sum, pallas_tpu, pallas_tpu_ring
from pallas_kernels.pair_reduce.flops import products
from pallas_kernels.pair_reduce.interpreted import interpreted
from pallas_kernels.pair_reduce.paging import Paging

WHEN = ["eager", "on_wait"]  # the earliest and the latest that a copy may happen


def tile(row, col, params, at):
    own = at.row[:, None] == at.col
    return {"logit": params * (row @ col.T) + own, "loss": jnp.where(own, 1.0, row @ col.T)}


def loss(x, y, scale, **options):
    """Statistics by row, by column and over all, and a sum in one pass."""
    asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col", "all")}
    stats = pair_reduce(tile, x, y, asked, scale, **options)
    total, _ = pair_sum(tile, x, y, {"loss": 0.5}, scale, **options)
    return (stats["row"] ** 2).sum() - stats["col"].sum() + stats["all"] + total


def vectors(n, m):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 8)).astype("f"), rng.normal(size=(m, 8)).astype("f"), np.float32(0.3)


def gradients(args, **options):
    step = jax.value_and_grad(partial(loss, **options), (0, 1, 2))
    return jax.device_get(jax.jit(step)(*args))


def simulated(args, when="eager", **options):
    """Value and gradients by the kernel, and whether any two accesses raced."""
    pltpu.reset_tpu_interpret_mode_state()
    how = pltpu.InterpretParams(detect_races=True, dma_execution_mode=when)
    with interpreted(how):
        got = gradients(args, impl="pallas_tpu", blocks=(16, 16), **options)
    return got, simulation.races.races_found


def assert_close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert np.abs(a - b).max() <= 2e-6 * np.abs(b).max()


def devices(count):
    mesh = jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count])
    return jax.set_mesh(mesh)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("room", [0, 1 << 20], ids=["paged", "resident"])
@pytest.mark.parametrize("n, m", [(40, 70), (16, 30)])
def test_pages_of_column_state_do_not_race(monkeypatch, n, m, room, when):
    monkeypatch.setattr(pallas_tpu, "room_for_state", lambda: room)
    got, races = simulated(vectors(n, m), when)
    assert not races
    assert_close(got, gradients(vectors(n, m), impl="reference"))


def test_a_page_that_nobody_waits_for_races(monkeypatch):
    """The simulation sees it: what the other tests rely on."""
    copies = Paging._copies

    class Hasty:
        def __init__(self, copy):
            self.start = copy.start

        def wait(self):
            pass

    def hasty(self, *args, out, **options):
        made = copies(self, *args, out=out, **options)
        return made if out else map(Hasty, made)

    monkeypatch.setattr(pallas_tpu, "room_for_state", lambda: 0)
    monkeypatch.setattr(Paging, "_copies", hasty)
    assert simulated(vectors(40, 70), "eager")[1]


def program():
    """What `test_devices` runs in a process of its own: this file, with words of its command."""
    count, n, m, when, comm, room = sys.argv[1:]
    pallas_tpu_ring.room_for_state = pallas_tpu.room_for_state = lambda: int(room)
    args = vectors(int(n), int(m))
    want = gradients(args, impl="reference", mesh_axes=())
    with devices(int(count)):
        got, races = simulated(args, when, comm=comm)
    assert_close(got, want)
    assert not races


def run_in_a_process(*words):
    """A simulated TPU is a thread that waits: XLA has as many as there seem to be processors."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "NPROC": "64"}
    ran = subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_a_ring_of_two_inside_the_kernel():
    run_in_a_process(2, 80, 48, "on_wait", "fused", 0)  # columns move, in two pages


@pytest.mark.long
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(
    "count, n, m, comm, room",
    [
        (4, 160, 224, "fused", 1 << 20),  # rows move; three pages; columns stay in VMEM
        (4, 192, 64, "fused", 0),  # columns move, in one page; rows are paged
        (8, 192, 128, "fused", 0),
        (8, 128, 320, "fused", 0),
        (4, 160, 224, "ring", 0),
        (8, 192, 128, "ring", 0),
        (8, 192, 128, "gather", 0),
    ],
)
def test_devices(count, n, m, comm, room, when):
    run_in_a_process(count, n, m, when, comm, room)


def test_a_ring_inside_the_kernel_sends_nothing_else_and_shares_the_products():
    x, y = (jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (1024, 2048))
    scale = jax.ShapeDtypeStruct((), jnp.float32)

    def softmax(x, y, scale):
        asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col")}
        stats = pair_reduce(tile, x, y, asked, scale, comm="fused", blocks=(128, 128))
        return stats["row"].sum() + stats["col"].sum()

    with devices(4):
        step = jax.grad(softmax, (0, 1))
        assert "ppermute" not in str(jax.make_jaxpr(step)(x, y, scale))
        assert products(step, x, y, scale, unit=2.0 * 1024 * 2048 * 64) == 4


def test_what_a_fused_ring_cannot_do_is_said(monkeypatch):
    x, y, scale = vectors(64, 64)
    with devices(4), pytest.raises(ValueError, match='"fused" is a ring inside a TPU kernel; xla'):
        loss(x, y, scale, comm="fused", impl="xla")
    slices = jax.make_mesh((2, 2), ("slice", "data"), (AxisType.Auto,) * 2)
    with jax.set_mesh(slices), pytest.raises(ValueError, match="does not go between slices"):
        loss(x, y, scale, comm="fused")
    monkeypatch.setattr(pallas_tpu_ring, "vmem", lambda: 1 << 10)
    with devices(4), pytest.raises(ValueError, match='two slots of what travels .*take "ring"'):
        loss(x, y, scale, comm="fused")


if __name__ == "__main__":
    program()
