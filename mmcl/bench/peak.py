"""How quickly the devices of a mesh multiply matrices: measured, not a data sheet's word."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SIDE = {"cpu": 2048}  # of the square matrices, by backend
LARGE = 8192  # where a smaller one would not fill the device
PRODUCTS = 2  # in a program, so that to start it is nothing beside them


class Peak:
    """Products of square matrices of `dtype`, one on each device of the mesh at a time."""

    def __init__(self, mesh: Mesh, dtype: jnp.dtype):
        side = SIDE.get(mesh.devices.flat[0].platform, LARGE)
        rows = side * mesh.size
        self._flops = PRODUCTS * 2.0 * rows * side * side
        split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._a = jnp.full((rows, side), 0.5, dtype, device=split)
        self._b = jnp.full((side, side), 1 / side, dtype, device=whole)

        def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
            for _ in range(PRODUCTS):
                a = a @ b
            return a

        self._multiply = jax.jit(multiply, out_shardings=split)
        self._multiply(self._a, self._b).block_until_ready()

    def flops_per_s(self, repeats: int) -> float:
        """Of all devices together, the best of so many tries."""
        best = 0.0
        for _ in range(repeats):
            began = time.perf_counter()
            self._multiply(self._a, self._b).block_until_ready()
            best = max(best, self._flops / (time.perf_counter() - began))
        return best
