"""The meter: times, peaks and the size of the unit; published sizes."""

import subprocess
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


KEPT_BY_A_THREAD = """
from concurrent.futures import ThreadPoolExecutor
from pallas_kernels.pair_reduce.benchmark import MIB, one_heap, peak_mib
{begin}
with ThreadPoolExecutor(1) as pool:
    call = lambda: pool.submit(lambda: len(bytearray(b"x") * (24 * MIB))).result()
    for _ in range(4):
        call()
    print(peak_mib(call))
"""


@linux
def test_memory_that_a_thread_had_before_counts_again() -> None:
    """As in the threads of XLA and of torch. Without one heap, the allocator keeps it unseen."""
    words = [sys.executable, "-c", KEPT_BY_A_THREAD.format(begin="one_heap()")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 23 <= float(done.stdout) < 30


def test_published_sizes_name_their_source() -> None:
    for spec in SPECS.values():
        assert spec.batch % 1024 == 0 and spec.dim % 128 == 0
        assert "20" in spec.source
