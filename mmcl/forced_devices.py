"""Threads for the devices that one CPU is divided into, by XLA_FLAGS or JAX_NUM_CPU_DEVICES.

All of them run on one pool of threads, by default one a core. Who waits for the others in a
collective keeps his thread; with few cores none is left for those he waits for. Within a process
XLA ends the program after 40 s of that, across processes nobody does. It reads the size of the pool
from NPROC, once. Twice as many threads as devices were never seen to hang, where as many do within
600 steps (BUILD_NOTES.md).
"""

import os
import re
from collections.abc import MutableMapping

VARIABLE = "NPROC"


def give_threads(environment: MutableMapping[str, str]) -> None:
    """Enough of them, before jax is imported; nothing where the user has said how many."""
    flags = environment.get("XLA_FLAGS", "")
    forced = re.findall(r"--xla_force_host_platform_device_count=(\d+)", flags)
    devices = int(environment.get("JAX_NUM_CPU_DEVICES") or (forced or ["1"])[-1])
    if devices > 1 and VARIABLE not in environment:
        environment[VARIABLE] = str(max(os.cpu_count() or 1, 4 * devices))
