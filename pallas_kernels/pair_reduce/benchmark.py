"""What a computation costs: processor time, clock time, memory, products.

    cost = measure(jax.value_and_grad(loss, (0, 1)), (a_BxD, b_BxD), unit=(a_BxD, b_BxD))

Processor time is that of the whole process, all threads together: on a busy machine it is far
steadier than the clock. Memory is what the process grew by beyond its inputs, so a process should
measure one computation and no other.
"""

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pallas_kernels.pair_reduce.flops import products

MIB = 1 << 20
STRIP = 16 * MIB  # bytes of a strip of the unit product; beyond, memory's cost is measured too


class Spent(NamedTuple):
    """Of one computation, the best of several times."""

    cpu_s: float  # of all threads
    wall_s: float
    peak_mib: float | None  # the most memory at once, above what was there before; None: unknown


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
    call, one = best([lambda: jax.block_until_ready(compiled(*args)), multiply], repeats)
    return Cost(
        cpu_s=call.cpu_s if here else None,
        wall_s=call.wall_s,
        peak_mib=call.peak_mib if here else None,
        temp_mib=None if sizes is None else sizes.temp_size_in_bytes / MIB,
        unit_cpu_s=one.cpu_s if here else None,
        products=products(function, *args, unit=2.0 * len(a) * len(b) * a.shape[1]),
    )


def best(calls: Sequence[Callable[[], Any]], repeats: int) -> list[Spent]:
    """Run all `calls` in turn, once to warm up and then `repeats` times.

    Returns:
        for each its least times and its largest peak.
    """
    spent = [[_spent(call) for call in calls] for _ in range(repeats + 1)][1:]
    return [
        Spent(
            min(each.cpu_s for each in one),
            min(each.wall_s for each in one),
            max((each.peak_mib for each in one if each.peak_mib is not None), default=None),
        )
        for one in zip(*spent)
    ]


def _strips(a: jax.Array, row_bytes: int) -> list[jax.Array]:
    """All rows of `a`, at most so many at once that a product with rows of that size is small."""
    rows = max(1, STRIP // row_bytes)
    return [a[start : start + rows] for start in range(0, len(a), rows)]


def _spent(call: Callable[[], Any]) -> Spent:
    """One run. Its results live until the peak is read: they are part of it."""
    gc.collect()
    before = _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    results = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = None if before is None else max(0, _kib("VmHWM") - before) / 1024
    del results
    return Spent(cpu, wall, peak)


def _forget_peak() -> int | None:
    """Let the peak of this process begin at what it holds now.

    Returns:
        what it holds, KiB; None where only Linux could say.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back: using it again is growth
        Path("/proc/self/clear_refs").write_text("5")
        return _kib("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None


def _kib(name: str) -> int:
    """A line of the kernel's record of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
