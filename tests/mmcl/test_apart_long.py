"""Processes with a folder each save without waiting for, or being misled by, each other."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

DIRECTORIES_MADE_IN_S = 0.5  # on the slow disk


def run(process: int, port: str, home: str, disk: str) -> None:
    """One of two processes: save steps 1, 2 and 3 of a state that is split over both."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    jax.distributed.initialize(f"localhost:{port}", 2, process)
    from mmcl.checkpoint import Checkpoints
    from mmcl.state import TrainState
    from mmcl.workdir import saved_steps

    made = os.mkdir

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        if process == 0 and disk == "slow":
            time.sleep(DIRECTORIES_MADE_IN_S)
        if process == 0 and disk == "full" and "checkpoints/2." in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        made(path, *args, **kwargs)

    split = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))

    def state(step: int) -> TrainState:
        whole = np.arange(64, dtype=np.float32) + step
        w = jax.make_array_from_callback((64,), split, lambda at: whole[at])
        return TrainState(step, {"w": w}, None, None, None, None)

    folder = Path(home) / str(process)
    checkpoints = Checkpoints(folder, keep=3, apart=True, tell=lambda line: print(line, flush=True))
    os.mkdir = mkdir  # which pathlib calls
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"step": step}, {})
    checkpoints.close()
    print(saved_steps(folder), flush=True)


@pytest.mark.parametrize("disk", ["slow", "full"])
def test_one_has_a_bad_disk(tmp_path: Path, disk: str) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(i), str(port), str(tmp_path), disk],
            env=os.environ | flags,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0]
    assert said[1] == ["[1, 2, 3]"]
    if disk == "full":
        full = "Step 2 could not be saved (No space left on device); the newest checkpoint is that"
        assert said[0] == [f"{full} of step 1.", "[1, 3]"]
    else:
        assert said[0] == ["[1, 2, 3]"]


if __name__ == "__main__":
    run(int(sys.argv[1]), *sys.argv[2:])
