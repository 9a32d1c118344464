"""Where arrays live: parameters on every device, batches split along `data`."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
    """All devices along one axis, `data`."""
    return jax.make_mesh(
        (jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (host arrays) as global arrays, split along their first axis."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
