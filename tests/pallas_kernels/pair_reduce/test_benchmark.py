"""The meter: times, peaks and the size of the unit; published sizes."""

import sys
import time

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels.pair_reduce import benchmark
from pallas_kernels.pair_reduce.arg_specs import SPECS
from pallas_kernels.pair_reduce.benchmark import MIB, best, measure, peak_mib

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")


def square(a, b):
    """Σ (a·b)², dense: one product forward and two backward."""
    return jnp.sum((a @ b.T) ** 2)


def test_measure_tells_everything_on_the_cpu() -> None:
    a, b = jax.random.normal(jax.random.key(0), (2, 1024, 16))
    cost = measure(jax.value_and_grad(square, (0, 1)), (a, b), unit=(a, b), repeats=1)
    assert cost.products == 3.0
    assert cost.temp_mib is not None and 4 <= cost.temp_mib <= 13  # B×B float32: 4 MiB
    assert cost.cpu_s is not None and cost.cpu_s > 0
    assert cost.unit_cpu_s is not None and cost.unit_cpu_s > 0
    assert cost.wall_s > 0


def test_the_unit_is_a_whole_product_whatever_its_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    a = jnp.arange(40.0).reshape(10, 4)
    for size, lengths in {10: [1] * 10, 72: [3, 3, 3, 1], 1000: [10]}.items():
        monkeypatch.setattr(benchmark, "STRIP", size)
        strips = benchmark._strips(a, row_bytes=24)
        assert [len(strip) for strip in strips] == lengths
        assert jnp.array_equal(jnp.concatenate(strips), a)


def test_the_best_of_several_times_and_the_warm_up_does_not_count() -> None:
    naps = iter([0.001, 0.5, 0.05, 0.4])
    (spent,) = best([lambda: time.sleep(next(naps))], 3)
    assert 0.05 <= spent.wall_s < 0.4
    assert spent.cpu_s < 0.04  # a nap costs no processor


@linux
def test_the_peak_is_growth_above_what_was_there() -> None:
    def grown(mib: int) -> float:
        peak = peak_mib(lambda: bytearray(b"x") * (mib * MIB))
        assert peak is not None
        return peak

    held = bytearray(b"x") * (96 * MIB)
    assert 63 <= grown(64) < 72
    assert grown(1) < 4  # an earlier and larger peak is forgotten
    assert held


@linux
def test_memory_that_was_used_before_counts_again() -> None:
    """Whether the allocator had kept it or not."""
    a = jnp.ones((512, 64))
    call = jax.jit(lambda a: a @ a.T).lower(a).compile()
    for _ in range(20):
        jax.block_until_ready(call(a))
    peaks = [peak_mib(lambda: jax.block_until_ready(call(a))) for _ in range(3)]
    assert all(peak is not None and 0.9 <= peak < 3 for peak in peaks), peaks


def test_published_sizes_name_their_source() -> None:
    for spec in SPECS.values():
        assert spec.batch % 1024 == 0 and spec.dim % 128 == 0
        assert "20" in spec.source
