"""Eight devices on few cores do not wait for each other for ever."""

import os
import subprocess
import sys

import pytest

from mmcl.forced_devices import VARIABLE, give_threads

FORCED = "--xla_force_host_platform_device_count"

STEPS = """
import os
from mmcl.forced_devices import give_threads
give_threads(os.environ)
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, P("fsdp"))
w_KxDxD = [jax.device_put(jnp.eye(256) / 16, split) for _ in range(8)]
x_BxD = jax.device_put(jnp.ones((64, 256)), split)

@jax.jit
def step(w_KxDxD, x_BxD):
    loss = lambda w_KxDxD: sum(jnp.sum(jnp.tanh(x_BxD @ w) ** 2) for w in w_KxDxD)
    g_KxDxD = jax.grad(loss)(w_KxDxD)
    return [jax.lax.with_sharding_constraint(w - 1e-3 * g, split) for w, g in zip(w_KxDxD, g_KxDxD)]

for _ in range(600):
    w_KxDxD = step(w_KxDxD, x_BxD)
jax.block_until_ready(w_KxDxD)
print("all of them")
"""


@pytest.mark.parametrize(
    ("said", "devices"),
    [
        ({}, 1),
        ({"XLA_FLAGS": f"{FORCED}=1"}, 1),
        ({"XLA_FLAGS": f"{FORCED}=64 --xla_dump_to=x"}, 64),
        ({"XLA_FLAGS": f"{FORCED}=2 {FORCED}=64"}, 64),
        ({"JAX_NUM_CPU_DEVICES": "64", "XLA_FLAGS": ""}, 64),
    ],
)
def test_threads_for_all_devices(said: dict[str, str], devices: int) -> None:
    environment = dict(said)
    give_threads(environment)
    if devices == 1:
        assert environment == said
    else:
        assert int(environment.pop(VARIABLE)) >= 2 * devices
        assert environment == said


def test_what_the_user_says_stays() -> None:
    environment = {"XLA_FLAGS": f"{FORCED}=8", VARIABLE: "3"}
    give_threads(environment)
    assert environment[VARIABLE] == "3"


@pytest.mark.long
def test_many_steps_in_flight() -> None:
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    environment |= {"XLA_FLAGS": f"{FORCED}=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all of them\n"
