"""What a computation costs: processor time, clock time, memory, products.

    cost = measure(jax.value_and_grad(loss, (0, 1)), (a_BxD, b_BxD), unit=(a_BxD, b_BxD))

Processor time is that of the whole process, all threads together: on a busy machine it is far
steadier than the clock. Memory is what the process grew by beyond its inputs, so a process should
measure one computation and no other.
"""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pallas_kernels.pair_reduce.flops import products

MIB = 1 << 20
M_ARENA_MAX = -8  # of mallopt in the GNU C library
STRIP = 16 * MIB  # bytes of a strip of the unit product; beyond, memory's cost is measured too


class Spent(NamedTuple):
    """Time of one computation, the best of several runs."""

    cpu_s: float  # of all threads
    wall_s: float


class Cost(NamedTuple):
    """What a jitted function costs; None where the device does not tell."""

    cpu_s: float | None
    wall_s: float
    peak_mib: float | None  # growth of the process, results included
    temp_mib: float | None  # what the compiler sets aside, results not included
    unit_cpu_s: float | None  # of one product of `unit`, in the same process
    products: float  # in the traced program, in units


def measure(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    unit: tuple[jax.Array, jax.Array],
    repeats: int = 3,
) -> Cost:
    """The costs of `jit(function)(*args)`, compilation left out.

    Args:
        unit: a_nxd and b_mxd whose product `a @ b.T` is the measure of all products. It is made
            in strips, so that it needs no memory worth counting.
        repeats: how often it is run after a first time that does not count; the best counts.
    """
    compiled = jax.jit(function).lower(*args).compile()
    sizes = compiled.memory_analysis()
    a, b = unit
    strips = _strips(a, len(b) * a.dtype.itemsize)
    product = jax.jit(lambda strip, b: strip @ b.T)

    def multiply() -> None:
        for strip in strips:
            product(strip, b).block_until_ready()

    jax.block_until_ready((args, strips))
    here = jax.default_backend() == "cpu"  # else the process only waits for the device

    def call() -> Any:
        return jax.block_until_ready(compiled(*args))

    spent, one = best([call, multiply], repeats)
    return Cost(
        cpu_s=spent.cpu_s if here else None,
        wall_s=spent.wall_s,
        peak_mib=peak_mib(call) if here else None,
        temp_mib=None if sizes is None else sizes.temp_size_in_bytes / MIB,
        unit_cpu_s=one.cpu_s if here else None,
        products=products(function, *args, unit=2.0 * len(a) * len(b) * a.shape[1]),
    )


def best(calls: Sequence[Callable[[], Any]], repeats: int) -> list[Spent]:
    """The least times of each of `calls`: run in turn, once to warm up and then `repeats` times."""
    runs = [[_spent(call) for call in calls] for _ in range(repeats + 1)][1:]
    return [
        Spent(min(run.cpu_s for run in one), min(run.wall_s for run in one)) for one in zip(*runs)
    ]


def one_heap() -> None:
    """Let all threads that are yet to come share the main one's heap: only that can be trimmed."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def peak_mib(call: Callable[[], Any]) -> float | None:
    """The most memory that the process gets from the system during a call, its results included.

    The call should have been warmed up, and `one_heap` called when the process began. None where
    this is not Linux with the GNU C library.
    """
    gc.collect()
    time.sleep(0.2)  # other threads drop the last of earlier results
    try:
        c_library = ctypes.CDLL(None)
        c_library.malloc_trim(0)  # what is free goes back: using it again is growth
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _kib("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None
    results = call()
    after = _kib("VmHWM")
    del results
    return max(0, after - before) / 1024


def _spent(call: Callable[[], Any]) -> Spent:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def _strips(a: jax.Array, row_bytes: int) -> list[jax.Array]:
    """All rows of `a`, at most so many at once that a product with rows of that size is small."""
    rows = max(1, STRIP // row_bytes)
    return [a[start : start + rows] for start in range(0, len(a), rows)]


def _kib(name: str) -> int:
    """A line of the kernel's record of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
