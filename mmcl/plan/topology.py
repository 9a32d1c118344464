"""Devices that are not there: by name, as jax compiles for them, and with their data sheets.

Memory is what programs may take: what the compiler for TPUs says, and a GPU's less what
CUDA and cuDNN hold. Rates of links are the vendors', in one direction: of a TPU those two that a
ring along one axis of the torus uses, of a GPU NVLink.
"""

import os
import re
from typing import Any, NamedTuple

from jax.experimental import topologies

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from pallas_kernels.pair_reduce.on_chip import CHIPS, KNOWN_AS, Chip

GIB = 1 << 30


class Part(NamedTuple):
    """One device, as jax sees it.

    Attributes:
        chip: its data sheet.
        hbm: bytes of memory that a program may take.
        links: bytes a second to the others of its slice or machine.
        network: bytes a second between slices or machines; this device's share of its machine's.
    """

    chip: Chip
    hbm: int
    links: float
    network: float


def _chip(name: str) -> Chip:
    return CHIPS[KNOWN_AS.get(name, name)]


PARTS = {
    "v4": Part(_chip("TPU v4"), int(30.75 * GIB), 100e9, 6.25e9),
    "v5e": Part(_chip("TPU v5e"), int(15.75 * GIB), 100e9, 3.1e9),
    "v5p": Part(_chip("TPU v5p"), int(95.74 * GIB), 200e9, 6.25e9),
    "v6e": Part(_chip("TPU v6e"), int(31.25 * GIB), 224e9, 6.25e9),
    "tpu7x": Part(_chip("TPU7x"), int(94.75 * GIB), 200e9, 6.25e9),
    "h100": Part(_chip("H100"), 75 * GIB, 450e9, 50e9),
}
DIMENSIONS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3, "h100": 2}
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
ENVIRONMENT = {  # of libtpu, which otherwise looks for the TPU of this machine
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


class Topology(NamedTuple):
    """Attributes:
    devices: as jax has them; nothing can run on them.
    groups: device number -> its slice (of TPUs) or machine (of GPUs).
    """

    name: str
    part: Part
    devices: list[Any]
    groups: dict[int, int]


def topology(name: str) -> Topology:
    """`v5e:16x16` chips, `v5p:4x4x8*2` with slices, `h100:32x8` machines and GPUs of each.

    Raises:
        InputError: there is no such topology, or jax cannot compile for it here.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?", name)
    kind = found[1].lower() if found else name.partition(":")[0]
    if kind not in PARTS:
        raise InputError(
            f"--topology: there is no '{name}'.{nearest(kind, PARTS)} Name a device and a shape: "
            "v5e:16x16, v5p:8x8x4, h100:32x8."
        )
    if not found or len(found[2].split("x")) != DIMENSIONS[kind]:
        shape = "x".join("4" * DIMENSIONS[kind])
        raise InputError(
            f"--topology: '{name}' should be like {kind}:{shape}, or {kind}:{shape}*2."
        )
    shape, slices = found[2], int(found[3] or 1)
    try:
        devices = _gpus(shape) if kind == "h100" else _tpus(kind, shape, slices)
    except Exception as error:  # libtpu and the plugins raise nothing narrower
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        install = "'mmcl[cuda]'" if kind == "h100" else "'mmcl[tpu]'"
        raise InputError(
            f"--topology: jax cannot compile for {name} here ({first}); it needs pip install "
            f"{install}, and a shape that there is."
        ) from error
    if kind == "h100":
        each = int(shape.split("x")[1])
        groups = {device.id: i // each for i, device in enumerate(devices)}
    else:
        groups = {device.id: getattr(device, "slice_index", 0) for device in devices}
    return Topology(name, PARTS[kind], devices, groups)


def _tpus(kind: str, shape: str, slices: int) -> list[Any]:
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind in ("v5e", "v6e") and shape == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device, as there
    described = topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **options)
    return list(described.devices)


def _gpus(shape: str) -> list[Any]:
    machines, each = shape.split("x")
    described = topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=f"{machines}x1x{each}"
    )
    return list(described.devices)
