"""Several processes that train together: who they are, and how they find each other.

A launcher says it by environment variables (SLURM's `srun`, Open MPI's `mpirun`, a TPU pod or GKE),
or the user by options. jax does the rest.
"""

import glob
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_pipelines.errors import InputError

HEARTBEAT_S = 60  # after which a process that says nothing counts as dead, and the others end


class Given(NamedTuple):
    """What the user says; None for what the environment does."""

    coordinator: str | None = None  # HOST:PORT of process 0
    processes: int | None = None
    process: int | None = None  # this one's number, from 0


class Launched(NamedTuple):
    """What a launcher says."""

    by: str
    processes: int
    process: int
    here: int  # how many of them run on this machine
    number_here: int  # this one's number among those


def start(
    given: Given,
    wait_s: float,
    env: Mapping[str, str] = os.environ,
    *,
    preemptible: bool = False,
) -> None:
    """Meet the other processes, if there are any; before jax is used for anything else.

    Args:
        wait_s: for so long at most; then one line says what is missing, and this process ends with
            code 2 (jax itself would abort, with the stack of its C++ code).
        preemptible: whether SIGTERM is to be noted until `Stops` is asked; else it ends a process.

    Raises:
        InputError: an option is missing or wrong, or the meeting place cannot be used.
    """
    launched = launcher(env)
    if not any(one is not None for one in given) and launched is None and not _on_a_tpu(env):
        return
    _check(given, launched)
    count, process = given.processes, given.process
    if launched is not None:
        count, process = (
            count or launched.processes,
            launched.process if process is None else process,
        )
    who = f"process {process} of {count}" if count else "this process"
    where = f"at {given.coordinator}" if given.coordinator else "where the launcher says"
    ending = threading.Timer(
        wait_s,
        _end,
        [
            f"{who} did not meet all others {where} within {wait_s:g} s: see that all of them "
            "run, with the same coordinator, and that its port is open to them; --wait gives them "
            "longer."
        ],
    )
    ending.daemon = True
    ending.start()
    jax.config.update("jax_enable_preemption_service", preemptible)
    try:
        jax.distributed.initialize(
            given.coordinator,
            count,
            process,
            local_device_ids=gpus(launched, env) if launched else None,
            initialization_timeout=int(wait_s) + 60,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{who} cannot meet the others {where}: {_first_line(error)}.") from error
    finally:
        ending.cancel()


def launcher(env: Mapping[str, str]) -> Launched | None:
    """Who started several processes, if somebody did."""
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # srun sets it, a batch script has it not
        tasks = _tasks_of_nodes(env.get("SLURM_STEP_TASKS_PER_NODE", "1"))
        node = int(env.get("SLURM_NODEID", 0))
        here = tasks[node] if node < len(tasks) else 1
        count, process = int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_PROCID"])
        return Launched("SLURM", count, process, here, int(env.get("SLURM_LOCALID", 0)))
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return Launched(
            "Open MPI",
            int(env["OMPI_COMM_WORLD_SIZE"]),
            int(env["OMPI_COMM_WORLD_RANK"]),
            int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)),
            int(env.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)),
        )
    return None


def gpus(launched: Launched, env: Mapping[str, str]) -> list[int] | None:
    """Which of the GPUs that this process sees are its own: an equal share of the machine's.

    Left to itself jax takes one GPU a process, whatever the launcher gave it.

    Raises:
        InputError: they cannot be shared out evenly.
    """
    named = env.get("CUDA_VISIBLE_DEVICES")
    seen = len(named.split(",")) if named else len(glob.glob("/dev/nvidia[0-9]*"))
    if seen == 0:
        return [0]  # of nothing; no GPU, no choice
    if launched.here == 1 or seen == 1:  # all there are, or the one that the launcher shows it
        return list(range(seen))
    if seen % launched.here:
        raise InputError(
            f"{launched.by} starts {launched.here} processes on a machine of {seen} GPUs; take a "
            f"number that divides {seen}, or one process a machine."
        )
    share = seen // launched.here
    return list(range(launched.number_here * share, (launched.number_here + 1) * share))


def is_first() -> bool:
    """Whether this process speaks and writes for all of them."""
    return jax.process_index() == 0


def this_process() -> tuple[int, int]:
    """Its number, and how many there are."""
    return jax.process_index(), jax.process_count()


def first_does(work: Callable[[], None]) -> None:
    """Process 0 does something while the others wait.

    Raises:
        InputError: it could not; all processes raise it.
    """
    failed = None
    if is_first():
        try:
            work()
        except InputError as error:
            failed = error
    if agreed(failed is not None):
        raise failed or InputError("Process 0 cannot go on, and says why.")


def agreed(value: int) -> int:
    """What process 0 says; all of them must ask."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_says(flag: bool) -> bool:
    """Whether one of the processes says so; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def _check(given: Given, launched: Launched | None) -> None:
    if launched and launched.by == "SLURM":
        return
    lacking = [
        f"--{name}"
        for name, value in given._asdict().items()
        if value is None and not (launched and name != "coordinator")
    ]
    if lacking and any(one is not None for one in given):
        raise InputError(
            f"{' and '.join(lacking)}: missing; without a launcher each process needs "
            "--coordinator HOST:PORT (of process 0), --processes N and --process I."
        )
    if given.coordinator is not None and ":" not in given.coordinator:
        raise InputError(f"--coordinator: '{given.coordinator}' should be HOST:PORT.")
    process, processes = given.process, given.processes
    if process is not None and processes is not None and not 0 <= process < processes:
        raise InputError(f"--process: {process} should be from 0 to {processes - 1}.")


def _on_a_tpu(env: Mapping[str, str]) -> bool:
    """Whether jax would use a TPU of this machine, which may be a part of a pod."""
    wanted = env.get("JAX_PLATFORMS", "tpu").split(",")
    there = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in wanted and bool(there) and importlib.util.find_spec("libtpu") is not None


def _tasks_of_nodes(text: str) -> list[int]:
    """`2(x3),1` -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def _end(line: str) -> None:
    """jax's C++ code is waiting: nothing else could end this process."""
    print(f"mmcl: {line}", file=sys.stderr, flush=True)
    os._exit(2)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
