"""The kernel compiled for H100s that are not here: memory of programs, on chip and beside it."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmcl.bench import cases
from pallas_kernels.pair_reduce import Reduce, choices, pair_reduce

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not any(map(importlib.util.find_spec, PLUGINS)),
        reason="compiling needs the plugin for CUDA: jax[cuda13-local], no GPU",
    ),
]
KERNEL = 'custom_call_target="__gpu$xla.gpu.triton"'
# What the compiler asks of a device; a kernel of more shared memory than it has does not compile.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def mesh_of(devices):
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=f"1x1x{devices}"
    )
    found = topologies.make_mesh(topology, (devices,), ("data",)).devices
    return Mesh(found, ("data",), axis_types=(AxisType.Auto,))


def shapes(tree, mesh, dtype=None, split=False):
    """Of what an array's shape is, on the mesh; matrices of floats as `dtype`."""
    where = NamedSharding(mesh, PartitionSpec("data" if split else None))
    whole = NamedSharding(mesh, PartitionSpec())

    def one(x):
        narrowed = dtype if x.dtype == jnp.float32 and x.ndim > 1 and dtype else x.dtype
        return jax.ShapeDtypeStruct(x.shape, narrowed, sharding=where if x.ndim else whole)

    return jax.tree.map(one, tree)


def compiled(name, batch, dim, dtype=jnp.float32):
    case = cases.build(name, batch, dim)
    args = shapes(case.args, mesh_of(1), dtype)
    with choices(impl="pallas_gpu") as made:
        program = jax.jit(case.function).lower(*args).compile()
    assert {choice["impl"] for choice in made.values()} == {"pallas_gpu"}
    return program


def temporary(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "name, dim, dtype",
    [
        *((name, 512, jnp.float32) for name in cases.default() if name != "filip"),
        ("clip", 768, jnp.bfloat16),
        ("siglip", 768, jnp.bfloat16),
        ("soft_targets", 768, jnp.bfloat16),
        ("clip", 24, jnp.float32),
    ],
)
def test_an_objective_compiles_without_a_grid_of_pairs(name, dim, dtype):
    batch = 16384
    program = compiled(name, batch, dim, dtype)
    assert KERNEL in program.as_text()
    assert temporary(program) < 2 * batch * batch  # half of a float32 grid


def test_tokens_compile(monkeypatch):
    monkeypatch.setattr(cases, "TOKENS", 4)
    program = compiled("filip", 4096, 512)
    assert KERNEL in program.as_text() and temporary(program) < 32 << 20


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_memory_grows_with_the_batch_and_no_faster(name):
    small, large = (temporary(compiled(name, batch, 512)) for batch in (8192, 16384))
    assert large <= 2.2 * small


def loss(x, y, scale):
    def tile(row, col, scale, at):
        return {"logit": scale * (row @ col.T)}

    asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col", "all")}
    stats = pair_reduce(tile, x, y, asked, scale, impl="pallas_gpu", comm="ring")
    return stats["row"].mean() + stats["col"].mean() + stats["all"]


def test_a_devices_memory_does_not_grow_with_the_devices():
    found = []
    for devices in (4, 8):
        mesh = mesh_of(devices)
        x = jax.ShapeDtypeStruct((512 * devices, 512), jnp.float32)
        args = shapes((x, x, jax.ShapeDtypeStruct((), jnp.float32)), mesh, split=True)
        with jax.set_mesh(mesh):
            step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
            program = step.lower(*args).compile()
        text = program.as_text()
        assert KERNEL in text and "collective-permute" in text
        found.append(temporary(program))
    assert found[1] <= 1.01 * found[0]


FUNCTIONS = {
    "erf": lax.erf,
    "curves": lambda x: jnp.tanh(x) + jnp.expm1(x) * jnp.log1p(x * x),
    "round": jnp.round,
    "away": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "select": lambda x: lax.select_n((x > 0).astype(jnp.int32) + (x > 1), x, 2 * x, 3 * x),
    "larger": lambda x: jnp.maximum(x, jnp.minimum(x * x, 1.0)),
    "flags": lambda x: x * jnp.any(x > 0, axis=1, keepdims=True) * ~(x > 1),
    "whole": lambda x: (x.astype(jnp.int32) // 3 % 5).astype(jnp.float32) * x,
    "powers": lambda x: jnp.abs(x) ** 1.5 + (x + 9) ** -2 + jnp.exp2(x) + lax.rsqrt(x * x + 1),
}


def parts(x):
    """Vectors cut in halves, joined the other way round, padded, and made of single numbers."""
    turned = jnp.concatenate([x[:, 8:], x[:, :8]], axis=1)
    shifted = jnp.pad(x[:, 1:3], ((0, 0), (5, 9)))
    return turned + shifted


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compile_with_their_derivatives(name):
    def tile(row, col, params, at):
        return {"score": FUNCTIONS[name](row @ parts(col).T)}

    def total(x, y):
        asked = {"sum": Reduce("sum", "score", "all")}
        return pair_reduce(tile, x, y, asked, impl="pallas_gpu", blocks=(16, 16))["sum"]

    x = jax.ShapeDtypeStruct((32, 16), jnp.float32)
    args = shapes((x, x), mesh_of(1))
    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    assert KERNEL in step.lower(*args).compile().as_text()
