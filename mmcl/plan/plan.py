"""What one training step needs of each device, from the very program that `train` would run there.

The step function is compiled ahead of time for devices that are not there. Memory is what the
compiler lays out; operations are counted in the traced program, loops and kernels as often as they
run, and shared out evenly; bytes are counted in the compiled one. Time is the roofline's: each of
products, memory, links and network as if it were alone and at the data sheet's rate.
"""

import re
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.loader import numeric
from mmcl import experiment, sharding
from mmcl.built_stage import BuiltStage, build
from mmcl.experiment import Stage
from mmcl.mesh import batch_sharding, make_mesh
from mmcl.plan.program import Program, by_kind, crosses
from mmcl.plan.topology import Topology
from mmcl.sharding import Placed
from mmcl.step import keyed
from pallas_kernels.pair_reduce.flops import operations

QUICK = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}


class Plan(NamedTuple):
    """Bytes, operations and seconds are those of one device and one step.

    Attributes:
        peak_bytes: the most memory in use at once, what the step is given included; of a program
            that does not fit, what the compiler says that it needs.
        params_bytes, optimizer_bytes, ema_bytes, objective_bytes: of the training state.
        batch_bytes: of the examples.
        loss_temp_bytes: what the objective alone sets aside, forward and backward.
        activation_bytes: the rest of the peak: activations, gradients, what is gathered.
        collective_bytes: kind of collective -> bytes sent; None where nothing was compiled.
        moved_bytes: what operations read from memory and write to it.
        products_s, memory_s, links_s, network_s: least seconds of each.
        step_s: the largest of them, which `limited_by` names.
        device_hours: of all steps of the run.
    """

    topology: str
    devices: int
    mesh: dict[str, int]
    batch_size: int
    fits: bool
    peak_bytes: int
    hbm_bytes: int
    params_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    objective_bytes: int
    batch_bytes: int
    loss_temp_bytes: int
    activation_bytes: int
    flops: float
    moved_bytes: float | None
    collective_bytes: dict[str, float] | None
    products_s: float
    memory_s: float | None
    links_s: float | None
    network_s: float | None
    step_s: float
    limited_by: str
    examples_per_s: float
    steps: int
    device_hours: float


def plan(stage: Stage, on: Topology, *, quick: bool = False) -> Plan:
    """What a stage's step needs on a topology.

    Args:
        quick: spend less of the compiler's time; it may move and keep a little more.

    Raises:
        InputError: the mesh or the batch does not come out even, or a part refuses its options.
    """
    settings = stage.settings
    mesh = make_mesh(settings.mesh, on.devices)
    built = build(stage, mesh)
    with jax.set_mesh(mesh):
        state, batch = state_shapes(built), batch_shapes(built)
        traced = built.train_step.trace(state, batch)  # type: ignore[attr-defined]
        options = QUICK if quick else None
        compiled, needs = _compiled(traced, options)
        loss, _ = _compiled(_loss(built, state, batch), options)
    placed = jax.tree.leaves(built.placed, is_leaf=lambda one: isinstance(one, Placed))
    held = {
        part: sum(one.device_nbytes for one in placed if one.name.startswith(f"{part}/"))
        for part in ("params", "optimizer", "ema", "objective")
    }
    examples = sum(_device_nbytes(x) for x in jax.tree.leaves(batch))
    loss_temp = loss.memory_analysis().temp_size_in_bytes if loss is not None else 0
    flops = operations(traced.jaxpr.jaxpr) / mesh.size
    seconds = {"products": flops / on.part.chip.bfloat16}
    moved = sent = None
    if compiled is not None:
        needs = compiled.memory_analysis().peak_memory_in_bytes
        program = Program(compiled.as_text())
        moved, collectives = program.moved_bytes(), program.collectives()
        sent = by_kind(collectives)
        group = {i: on.groups[device.id] for i, device in enumerate(mesh.devices.flat)}
        far = sum(one.link_bytes for one in collectives if crosses(one, group))
        seconds |= {
            "memory": moved / on.part.chip.bandwidth,
            "links": (sum(sent.values()) - far) / on.part.links,
            "network": far / on.part.network,
        }
    limited_by = max(seconds, key=lambda what: seconds[what])
    step_s = seconds[limited_by]
    return Plan(
        topology=on.name,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        batch_size=settings.batch_size,
        fits=compiled is not None and needs <= on.part.hbm,
        peak_bytes=needs,
        hbm_bytes=on.part.hbm,
        params_bytes=held["params"],
        optimizer_bytes=held["optimizer"],
        ema_bytes=held["ema"],
        objective_bytes=held["objective"],
        batch_bytes=examples,
        loss_temp_bytes=loss_temp,
        activation_bytes=max(needs - sum(held.values()) - examples - loss_temp, 0),
        flops=flops,
        moved_bytes=moved,
        collective_bytes=sent,
        products_s=seconds["products"],
        memory_s=seconds.get("memory"),
        links_s=seconds.get("links"),
        network_s=seconds.get("network"),
        step_s=step_s,
        limited_by=limited_by,
        examples_per_s=settings.batch_size / step_s,
        steps=settings.steps,
        device_hours=settings.steps * step_s * mesh.size / 3600,
    )


def state_shapes(built: BuiltStage) -> Any:
    """The training state as shapes, placed on the mesh."""
    return _placed(jax.eval_shape(built.init), sharding.shardings(built.placed, built.mesh))


def batch_shapes(built: BuiltStage) -> Any:
    """A global batch as shapes, split over the mesh."""
    size, split = built.stage.settings.batch_size, batch_sharding(built.mesh)

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        x = np.asarray(x)
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=split)

    return jax.tree.map(shape, numeric(built.example))


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, shardings
    )


def _loss(built: BuiltStage, state: Any, batch: Any) -> Any:
    """The objective alone, traced: value and gradients to the embeddings and its own parameters."""
    settings = built.stage.settings
    towers, objective = experiment.build_towers(settings), experiment.build_objective(settings)
    split = NamedSharding(built.mesh, PartitionSpec(batch_sharding(built.mesh).spec[0]))

    def encode(params: Any, batch: Any, key: Any) -> Any:
        batch = {**batch, **keyed(batch, towers.modules, key)}
        return towers.encode_all(params, batch, train=True)

    embeddings = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split),
        jax.eval_shape(encode, state.params, batch, state.key),
    )

    def loss(params: Any, z: Any, memory: Any, batch: Any, key: Any) -> Any:
        result = objective(params, memory, z, batch, key)
        return sum(term.mean() for term in result.terms.values())

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), allow_int=True))
    return both.trace(state.params["objective"], embeddings, state.objective, batch, state.key)


def _compiled(traced: Any, options: dict[str, Any] | None) -> tuple[Any, int]:
    """The program, or None and the bytes that it would need."""
    try:
        return traced.lower().compile(compiler_options=options), 0
    except jax.errors.JaxRuntimeError as error:
        found = re.findall(r"([\d.]+)([KMGT])\)? exceeds available HBM", str(error))
        if not found:
            raise
        number, unit = found[-1]
        return None, int(float(number) * 1024 ** (" KMGT".index(unit)))


def _device_nbytes(x: jax.ShapeDtypeStruct) -> int:
    assert x.sharding is not None
    return int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
