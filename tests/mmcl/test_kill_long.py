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
    return {**os.environ, "XLA_FLAGS": ""}  # one device, as a user has


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in CLOCKS} for r in metrics_log.read(folder)]


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if any(row["step"] >= step for row in rows(folder)) or process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError(f"no step {step} in two minutes")


@pytest.fixture
def experiment(tmp_path: Path, tiny_config: dict[str, Any]) -> Path:
    config = tiny_config | {"steps": 60, "eval": {"splits": []}, "checkpoint": {"every": 4}}
    file = tmp_path / "tiny.py"
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
