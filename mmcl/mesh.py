"""The mesh of devices, and how a batch lies on it.

slice   groups of devices between which links are slow; each holds all parameters
data    replicas of the parameters, each with its own examples
fsdp    devices that share out the parameters, each with its own examples
tensor  devices that share out the parameters and work on the same examples
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from pallas_kernels.pair_reduce.layout import BATCH_AXES

AnyMesh = Mesh | AbstractMesh


@dataclasses.dataclass(frozen=True)
class Axes:
    """The keys of `config.mesh`: how many devices along each axis; one may be -1, what is left."""

    slice: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def sizes(axes: Axes, devices: int) -> dict[str, int]:
    """Axis -> its size, for so many devices.

    Raises:
        InputError: they do not come out even.
    """
    found = dataclasses.asdict(axes)
    said = " × ".join(f"{name} {size}" for name, size in found.items() if size != 1) or "1"
    open_ = [name for name, size in found.items() if size == -1]
    if len(open_) > 1:
        raise InputError(f"config.mesh: {' and '.join(open_)} are both -1; only one can be.")
    for name, size in found.items():
        if size < 1 and size != -1:
            raise InputError(f"config.mesh.{name}: {size} should be 1 or more, or -1 for the rest.")
    fixed = math.prod(size for size in found.values() if size != -1)
    if open_ and devices % fixed == 0:
        return {**found, open_[0]: devices // fixed}
    if open_:
        raise InputError(
            f"config.mesh: {fixed} ({said}) does not divide {devices} devices; "
            f"take sizes whose product divides {devices}."
        )
    if fixed != devices:
        raise InputError(
            f"config.mesh: {said} is {fixed} devices and there are {devices}; change a size, or "
            "give one as -1."
        )
    return found


def make_mesh(axes: Axes, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices, or of those given; axes of one device are left out, but `data`.

    Raises:
        InputError: the sizes do not come out even, or the devices are in another number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    found = sizes(axes, len(devices))
    kept = _kept(found)
    names, shape = tuple(kept), tuple(kept.values())
    kind = (AxisType.Auto,) * len(names)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:  # an axis may be a part of one of the torus, where nothing else comes out even
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, names, axis_types=kind)
    if slices != found["slice"]:
        raise InputError(
            f"config.mesh.slice: {found['slice']}, but the devices are in {slices} slices; set it "
            f"to {slices}."
        )
    within = (1, *shape[1:])  # `slice` is the first axis
    between = (slices, *(1 for _ in shape[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(
        within, between, devices, allow_split_physical_axes=True
    )
    return Mesh(grid, names, axis_types=kind)


def abstract_mesh(axes: Axes, devices: int) -> AbstractMesh:
    """The same mesh of so many devices that need not be there.

    Raises:
        InputError: the sizes do not come out even.
    """
    kept = _kept(sizes(axes, devices))
    return AbstractMesh(tuple(kept.values()), tuple(kept), axis_types=(AxisType.Auto,) * len(kept))


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, along one axis, `data`."""
    return make_mesh(Axes(), devices)


def batch_axes(mesh: AnyMesh) -> tuple[str, ...]:
    """The axes of a mesh over which batches are split."""
    return tuple(name for name in BATCH_AXES if name in mesh.axis_names)


def batch_devices(mesh: AnyMesh) -> int:
    """Over how many devices a batch is split; those along `tensor` hold the same examples."""
    return math.prod(mesh.shape[name] for name in batch_axes(mesh))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Split along the first axis."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


def examples_split(x: jax.Array, *, tensor: int | None = None) -> jax.Array:
    """The same array, its first axis split over the devices as batches are.

    Said between the layers of a tower it keeps activations where their examples are, so that
    parameters travel to them and not the other way round. Without a mesh in the context, inside a
    `shard_map`, or where the axis does not divide, it says nothing.

    Args:
        tensor: an axis that is split over `tensor`; None: all others are whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    batch = tuple(name for name in BATCH_AXES if kinds.get(name) == AxisType.Auto)
    if not batch or x.shape[0] % math.prod(mesh.shape[name] for name in batch):
        return x
    axes: list[Any] = [batch, *[None] * (x.ndim - 1)]
    if tensor is not None and kinds.get("tensor") == AxisType.Auto:
        axes[tensor] = "tensor" if x.shape[tensor] % mesh.shape["tensor"] == 0 else None
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def whole(x: jax.Array) -> jax.Array:
    """The same array, whole on every device: a parameter that is to travel to where it is used."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.axis_names or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def places(mesh: Mesh, batch_size: int) -> list[int]:
    """Which examples of a global batch this process's devices hold, in order."""
    rows = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    held = np.zeros(batch_size, bool)
    for index in rows:
        held[index] = True
    return [int(place) for place in np.flatnonzero(held)]


def fitting_mesh(axes: Axes, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of these axes, where they come out even; else all devices along `data`."""
    try:
        return make_mesh(axes, devices)
    except InputError:
        return data_mesh(devices)


def _kept(found: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in found.items() if size > 1 or name == "data"}


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Any, mesh: Mesh) -> Any:
    """A batch of which this process has its `places` (host arrays), as global arrays split along
    the first axis.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def split_whole_batch(batch: Any, mesh: Mesh) -> Any:
    """The same of a batch that every process has as a whole."""
    sharding = batch_sharding(mesh)

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, batch)
