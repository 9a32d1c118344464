"""A real `mmcl train` in a process of its own, killed and started again."""

import os
import pprint
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl import metrics_log

CLOCKS = ("time", "train/examples_per_s", "train/data_wait")


def command(experiment: Path, folder: Path) -> list[str]:
    run = "import mmcl.cli; mmcl.cli.main()"
    return [sys.executable, "-c", run, "train", str(experiment), "--workdir", str(folder)]


def environment() -> dict[str, str]:
    """One device, as a user has; compiled quickly."""
    return {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in CLOCKS} for r in metrics_log.read(folder)]


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[Any]") -> None:
    for _ in range(12000):
        if any(row["step"] >= step for row in rows(folder)) or process.poll() is not None:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} in two minutes")


@pytest.fixture
def experiment(tmp_path: Path, tiny_config: dict[str, Any]) -> Path:
    config = tiny_config | {"steps": 60, "eval": {"splits": []}, "checkpoint": {"every": 4}}
    return written(tmp_path, config)


def written(folder: Path, config: dict[str, Any]) -> Path:
    file = folder / "tiny.py"
    file.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config(arg=None):\n    return ConfigDict({pprint.pformat(config)})\n"
    )
    return file


@pytest.fixture
def straight(tmp_path: Path, experiment: Path) -> list[dict[str, Any]]:
    folder = tmp_path / "straight"
    subprocess.run(command(experiment, folder), check=True, env=environment())
    return rows(folder)


@pytest.mark.long
def test_killed_again_and_again(
    tmp_path: Path, experiment: Path, straight: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "killed"
    rng = np.random.default_rng(0)
    for step in (3, 17, 30, 44):
        process = subprocess.Popen(command(experiment, folder), text=True, env=environment())
        wait_for_step(folder, step, process)
        time.sleep(rng.uniform(0, 0.3))  # anywhere: in a step, a save, a row
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(experiment, folder), check=True, env=environment())
    assert rows(folder) == straight


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()]


@pytest.mark.long
def test_a_killed_worker_is_replaced(
    tmp_path: Path, experiment: Path, straight: list[dict[str, Any]]
) -> None:
    """One of two processes that load data is killed in the middle of a run, which goes on alike."""
    folder = tmp_path / "workers"
    process = subprocess.Popen(
        [*command(experiment, folder), "--config.workers=2", "--config.threads=1"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for_step(folder, 5, process)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Worker 1, which loads data, was killed (SIGKILL); it is started again." in told
    assert rows(folder) == straight


@pytest.mark.long
def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, experiment: Path, straight: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command(experiment, folder), stdout=subprocess.PIPE, text=True, env=environment()
    )
    wait_for_step(folder, 5, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the state is saved" in said and f"train {experiment}" in said
    subprocess.run(command(experiment, folder), check=True, env=environment())
    assert rows(folder) == straight


@pytest.mark.long
@pytest.mark.parametrize("in_evaluation", [False, True])
def test_sigterm_saves_and_exits_0(
    tmp_path: Path, tiny_config: dict[str, Any], in_evaluation: bool
) -> None:
    """As a machine that is taken away sends it, also to the workers. The bound is for a step or a
    batch of an evaluation, and a save; on this machine, beside other tests.
    """
    every = 5 if in_evaluation else None
    splits = ["unseen_artist"] if in_evaluation else []
    changes = {"steps": 60, "checkpoint": {"every": 20}, "workers": 2, "threads": 1}
    evaluated = {"splits": splits, "every": every, "batch_size": 1}
    experiment = written(tmp_path, tiny_config | changes | {"eval": evaluated})
    straight, folder = tmp_path / "straight", tmp_path / "stopped"
    subprocess.run(command(experiment, straight), check=True, env=environment())
    process = subprocess.Popen(
        command(experiment, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for_step(folder, 9, process)
    time.sleep(0.2 if in_evaluation else 0)
    began = time.monotonic()
    for worker in (*children(process.pid), process.pid):
        os.kill(worker, signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert time.monotonic() - began < 20
    assert "Stopped by SIGTERM at step " in said and "the state is saved. Go on with:" in said
    assert errors == ""
    assert not (folder / "report.html").exists()
    subprocess.run(command(experiment, folder), check=True, env=environment())
    assert rows(folder) == rows(straight)


@pytest.mark.long
def test_the_second_process_in_a_workdir_is_refused(tmp_path: Path, experiment: Path) -> None:
    folder = tmp_path / "run"
    first = subprocess.Popen(command(experiment, folder), env=environment())
    wait_for_step(folder, 2, first)
    first.send_signal(signal.SIGSTOP)  # alive, and in no hurry
    second = subprocess.run(
        command(experiment, folder), capture_output=True, text=True, env=environment()
    )
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    assert f"{folder} is being trained by process {first.pid} on " in line
    first.kill()  # a dead one keeps nothing
    first.wait()
    subprocess.run(command(experiment, folder), check=True, env=environment())
    assert [row["step"] for row in rows(folder)] == list(range(1, 61))
