"""The kernels compiled for TPUs that are not here: memory, links and schedule of the programs."""

import importlib.util
import os
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmcl.bench import cases
from pallas_kernels.pair_reduce import Reduce, choices, pair_reduce, pair_sum, pallas_tpu

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="compiling needs libtpu: jax[tpu]"
    ),
]
MIB = 1 << 20
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # by several processes at once
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
SIZES = [  # of each generation: few chips and many
    ("v5e:2x2", 4),
    ("v5e:16x16", 256),
    ("v5p:2x2x1", 4),
    ("v5p:8x8x4", 256),
    ("v6e:2x2", 4),
    ("v6e:16x16", 256),
    ("tpu7x:2x2x1", 8),
    ("tpu7x:4x4x8", 256),
]
EACH, D = 1024, 512  # examples of a device, width


@cache
def devices(name):
    os.environ.update(ENVIRONMENT)
    return topologies.get_topology_desc(name, platform="tpu")


def mesh_of(name, count=None):
    topology = devices(name)
    if count is None:
        found = topologies.make_mesh(topology, (len(topology.devices),), ("data",)).devices
    else:
        found = np.array(topology.devices[:count])
    return Mesh(found, ("data",), axis_types=(AxisType.Auto,))


def tile(row, col, scale, at):
    logit = scale * (row @ col.T)
    own = at.row[:, None] == at.col
    return {"logit": logit, "loss": jax.nn.softplus(jnp.where(own, -logit, logit))}


def clip(x, y, scale, **options):
    asked = {per: Reduce("logsumexp", "logit", per) for per in ("row", "col")}
    lse = pair_reduce(tile, x, y, asked, scale, **options)
    return (lse["row"] + lse["col"]).mean() - 2 * scale * (x * y).sum(axis=1).mean()


def siglip(x, y, scale, **options):
    return pair_sum(tile, x, y, {"loss": 1.0}, scale, **options)[0] / len(x)


@cache
def compiled(loss, name, comm=None, dtype=jnp.float32, count=None, each=EACH, **options):
    """The loss and its gradients, which stay split as they are."""
    mesh = mesh_of(name, count)
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x = jax.ShapeDtypeStruct((each * mesh.size, D), dtype, sharding=split)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    with jax.set_mesh(mesh):
        options = {"blocks": (512, 512), **options}
        step = jax.value_and_grad(partial(loss, impl="pallas_tpu", comm=comm, **options), (0, 1, 2))
        jitted = jax.jit(step, out_shardings=(whole, (split, split, whole)))
        return jitted.lower(x, x, scale).compile()


def temporary(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("comm", ["ring", "fused"])
@pytest.mark.parametrize("few, many", list(zip(SIZES[::2], SIZES[1::2])), ids=str)
def test_a_devices_memory_is_the_same_among_four_and_among_256(few, many, comm):
    small, large = (compiled(clip, name, comm, jnp.bfloat16) for name, _ in (few, many))
    assert mesh_of(few[0]).size == few[1] and mesh_of(many[0]).size == many[1]
    assert temporary(large) <= min(1.1 * temporary(small) + MIB / 4, 13 * MIB)
    sizes = large.memory_analysis()
    whole = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    assert sizes.peak_memory_in_bytes <= whole + 13 * MIB
    met = many[1] if comm == "fused" else 2  # blocks: the compiler counts a loop's body once
    assert 4 <= large.cost_analysis()["flops"] / (2 * EACH * EACH * met * D) < 4.3


NAMES = ["clip", "siglip", "supcon", "soft_targets", "decoupled", "queue", "filip"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chip, dim", [("v5e:2x2", 512), ("v5p:2x2x1", 1024), ("tpu7x:2x2x1", 768)])
def test_every_objective_fits_the_memory_of_a_core(name, chip, dim):
    """A kernel that takes more VMEM than it may does not compile."""
    batch = 2048 if name == "filip" else 8192
    mesh = mesh_of(chip, 1)
    whole = NamedSharding(mesh, PartitionSpec())
    case = cases.build(name, batch, dim)
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), case.args)
    with jax.set_mesh(mesh), choices(impl="pallas_tpu") as made:
        assert pallas_tpu.vmem() in (96 * MIB, 48 * MIB)
        program = jax.jit(case.function).lower(*args).compile()
    assert {choice["impl"] for choice in made.values()} == {"pallas_tpu"}
    sizes = program.memory_analysis()
    inputs = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    assert "pair_reduce" in program.as_text()
    # Tokens are laid out anew, in words of 128 numbers; two calls have a gradient each of one side;
    # gradients that are made in the forward pass are still to be multiplied by a cotangent.
    more = {"filip": 3, "queue": 1, "siglip": 0.25}.get(name, 0) * inputs
    assert temporary(program) <= more + 8 * MIB


def test_a_tile_that_is_too_large_is_refused_by_the_compiler(monkeypatch):
    """It may take 8 MiB here: so what does compile, keeps to its limit."""
    monkeypatch.setattr(pallas_tpu, "vmem", lambda: 8 * MIB)
    with pytest.raises(Exception, match="(?i)vmem"):
        compiled(clip, "v5e:2x2", count=1, blocks=(1024, 1024))


@pytest.mark.parametrize("loss, products", [(clip, 4), (siglip, 3)])
def test_one_chip_holds_nothing_but_inputs_and_gradients(loss, products):
    """And, of gradients that are made in the forward pass, one that is multiplied once more."""
    once, twice = (compiled(loss, "v5e:2x2", count=1, each=k * 16384) for k in (1, 2))
    gradient = 16384 * D * 4 if loss is siglip else 0
    assert temporary(once) <= gradient + 4 * MIB
    assert temporary(twice) <= 2 * gradient + 8 * MIB
    assert round(once.cost_analysis()["flops"] / (2 * 16384**2 * D), 1) == products


# Links

SENT = re.compile(r"= \((\w+)\[([\d,]*)\].* collective-permute-start\(")
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "pred": 1}


def bodies(program):
    """The lines of every computation of a program, in the order of its schedule."""
    found, current = {}, []
    for line in program.as_text().splitlines():
        if line.endswith("{") and not line.startswith(" "):
            current = found.setdefault(line.split(" ")[0], [])
        current.append(line)
    return found


def sent(lines):
    shapes = [match.groups() for line in lines if (match := SENT.search(line))]
    return sum(
        BYTES[kind] * int(np.prod([int(n) for n in dims.split(",") if n])) for kind, dims in shapes
    )


def test_links_carry_what_a_ring_must_and_no_more():
    """The block P − 1 times, what was accumulated for it P times."""
    count = 16
    found = bodies(compiled(clip, "v5e:4x4", "ring"))
    carried = sum(
        sent(lines) * (1 if name == "ENTRY" else count - 1) for name, lines in found.items()
    )
    block, line = EACH * D * 4, EACH * 4
    forward = (count - 1) * block + count * 2 * line  # largest entry and sum of each column
    backward = (count - 1) * (block + 2 * line) + count * block  # lse and cotangent; gradient
    assert carried == forward + backward


def test_a_fused_ring_carries_as_much_in_the_kernel_itself():
    mesh = mesh_of("v5e:4x4")
    x = jax.ShapeDtypeStruct((EACH * 16, D), jnp.float32)
    with jax.set_mesh(mesh):
        step = jax.value_and_grad(partial(clip, comm="fused", blocks=(512, 512)), (0, 1))
        scale = jax.ShapeDtypeStruct((), jnp.float32)
        program = str(jax.make_jaxpr(step)(x, x, scale))
    estimates = [int(n) for n in re.findall(r"remote_bytes_transferred=(\d+)", program)]
    block, line = EACH * D * 4, EACH * 4
    assert sorted(estimates) == [
        15 * block + 16 * 2 * line,
        15 * (block + 2 * line) + 16 * block,
    ]
    text = compiled(clip, "v5e:4x4", "fused").as_text()
    assert "collective-permute" not in text and "all-gather" not in text


@pytest.mark.parametrize("name", ["v5e:4x4", "v5p:8x8x4", "v6e:16x16"])
def test_the_next_block_is_under_way_while_this_one_is_computed(name):
    """Forward and backward: what the scheduler put between a transfer's start and its end."""
    loops = 0
    for part, lines in bodies(compiled(clip, name, "ring", jnp.bfloat16)).items():
        kernel = [i for i, line in enumerate(lines) if re.search(r"%pair_reduce[\w.]* =", line)]
        if not kernel or part == "ENTRY":
            continue
        block = rf"bf16\[{EACH},{D}\]"
        start = [i for i, line in enumerate(lines) if re.search(block + r".*permute-start\(", line)]
        done = [i for i, line in enumerate(lines) if re.search(block + r".*permute-done\(", line)]
        assert start and done and start[0] < kernel[0] < done[0]
        loops += 1
    assert loops == 2
