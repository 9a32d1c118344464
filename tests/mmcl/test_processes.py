"""Who a process is: what launchers say, what the user says, and which GPUs are whose."""

import jax
import pytest

from data_pipelines.errors import InputError
from mmcl import processes
from mmcl.processes import Given, Launched, gpus, launcher, start

SRUN = {
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_PROCID": "5",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "1",
}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        (SRUN, Launched("SLURM", 7, 5, 2, 1)),
        (SRUN | {"SLURM_NODEID": "3"}, Launched("SLURM", 7, 5, 1, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script without srun
        (MPIRUN, Launched("Open MPI", 4, 3, 2, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
    ],
)
def test_launchers(env, expected):
    assert launcher(env) == expected


@pytest.mark.parametrize(
    ("visible", "here", "number", "own"),
    [
        ("0,1,2,3,4,5,6,7", 1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),  # one process a machine: all
        ("0,1,2,3,4,5,6,7", 8, 3, [3]),
        ("0,1,2,3,4,5,6,7", 2, 1, [4, 5, 6, 7]),
        ("5", 8, 5, [0]),  # the launcher shows each process its own
    ],
)
def test_gpus_are_shared_out_evenly(visible, here, number, own):
    launched = Launched("SLURM", 16, 0, here, number)
    assert gpus(launched, {"CUDA_VISIBLE_DEVICES": visible}) == own


def test_gpus_that_do_not_come_out_even():
    with pytest.raises(InputError, match="SLURM starts 3 processes on a machine of 4 GPUs"):
        gpus(Launched("SLURM", 3, 0, 3, 0), {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})


@pytest.fixture
def met(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    return calls


def test_alone_nobody_is_met(met):
    start(Given(), 1, {"JAX_PLATFORMS": "cpu"})
    assert met == []


def test_what_the_user_says(met):
    start(Given("host:1", 4, 0), 7, {})
    ((where, count, process), options) = met[0]
    assert (where, count, process) == ("host:1", 4, 0)
    assert options["local_device_ids"] is None and options["initialization_timeout"] > 7


def test_a_launcher_fills_in_what_the_user_does_not_say(met):
    start(Given("host:1"), 7, MPIRUN)
    assert met[0][0] == ("host:1", 4, 3)
    start(Given(), 7, SRUN)
    assert met[1][0] == (None, 7, 5)


@pytest.mark.parametrize(
    ("given", "env", "said"),
    [
        (Given("host:1"), {}, "--processes and --process: missing; without a launcher"),
        (Given(None, 4, 1), {}, "--coordinator: missing"),
        (Given("host", 4, 1), {}, "--coordinator: 'host' should be HOST:PORT"),
        (Given("host:1", 4, 4), {}, "--process: 4 should be from 0 to 3"),
    ],
)
def test_what_is_missing_or_wrong_is_said(met, given, env, said):
    with pytest.raises(InputError, match=said):
        start(given, 1, env)
    assert met == []


def test_a_place_that_cannot_be_used(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("address already in use\nand a stack")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    said = r"process 0 of 2 cannot meet the others at host:1: address already in use\.$"
    with pytest.raises(InputError, match=said):
        start(Given("host:1", 2, 0), 1, {})


def test_one_process_agrees_with_itself():
    assert processes.agreed(3) == 3 and processes.any_says(True) and processes.is_first()
    with pytest.raises(InputError, match="no"):
        processes.first_does(lambda: (_ for _ in ()).throw(InputError("no")))
