"""Where arrays live: parameters on every device, batches split along `data`."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, along one axis, `data`."""
    count = jax.device_count() if devices is None else len(devices)
    kind = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((count,), ("data",), axis_types=kind, devices=devices)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (host arrays) as global arrays, split along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
