"""A real `mmcl train` in a process of its own, killed and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
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
def experiment(experiment_file: Callable[..., Path], tiny_config: dict[str, Any]) -> Path:
    config = tiny_config | {"steps": 60, "eval": {"splits": []}, "checkpoint": {"every": 4}}
    return experiment_file(config)


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


OWN = '''
"""The queue of past embeddings, and a table of how often each record was seen and its last loss."""

import dataclasses

import jax.numpy as jnp
from mmcl.objectives import queue

RECORDS = 69  # of 24 concepts


@dataclasses.dataclass(frozen=True)
class Objective(queue.Objective):
    def init_state(self, key):
        table = {"seen": jnp.zeros(RECORDS, jnp.int32), "loss": jnp.zeros(RECORDS, jnp.float32)}
        return {"queue": super().init_state(key), "table": table}

    def __call__(self, params, state, embeddings, batch, key):
        result = super().__call__(params, state["queue"], embeddings, batch, key)
        (term,) = result.terms.values()
        table, at_B = state["table"], batch["index"]
        metrics = {"seen": table["seen"].sum(), "remembered": table["loss"].mean()}
        table = {
            "seen": table["seen"].at[at_B].add(1),
            "loss": table["loss"].at[at_B].set(term.value_B),
        }
        state = {"queue": result.state, "table": table}
        return result._replace(state=state, metrics={**result.metrics, **metrics})
'''


@pytest.mark.long
def test_25_kills_anywhere(
    tmp_path: Path,
    experiment_file: Callable[..., Path],
    children: Callable[[int], list[int]],
    tiny_config: dict[str, Any],
) -> None:
    """Of the run, of a worker, and of both at once; every second waits for a save to begin."""
    steps, kills = 300, 25
    (tmp_path / "own_table.py").write_text(OWN)
    experiment = experiment_file(
        tiny_config
        | {
            "steps": steps,
            "objective": {"name": "own_table", "length": 64, "positives": "concept"},
            "ema": 0.99,
            "eval": {"splits": ["unseen_artist"], "every": 100, "batch_size": 16},
            "checkpoint": {"every": 3, "keep": 2},
            "workers": 2,
            "threads": 1,
        },
    )
    straight, folder = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(experiment, straight), check=True, env=environment())
    rng, in_saves, of = np.random.default_rng(0), 0, {"run": 0, "worker": 0, "both": 0}
    goals = np.sort(rng.integers(1, steps - 100, kills))
    process = None
    for number, goal in enumerate(goals):
        if process is None:
            process = subprocess.Popen(command(experiment, folder), env=environment())
        wait_for_step(folder, goal, process)
        if number % 2 == 0:
            wait_for_a_save(folder, process)
        else:
            time.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None, "it came to its end before it could be killed"
        whom = list(of)[number // 2 % 3]
        of[whom] += 1
        workers = children(process.pid)
        if whom == "worker":
            os.kill(workers[number % len(workers)], signal.SIGKILL)
            continue
        process.kill()
        for worker in workers if whom == "both" else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        process.wait()
        process = None
        left = [one.name for one in (folder / "checkpoints").glob("*")]
        in_saves += any("tmp" in name for name in left)
        assert len(left) <= 4, f"orphans accumulate: {left}"  # 2 kept, 1 removed, 1 begun
    if process is not None:
        process.wait()
    subprocess.run(command(experiment, folder), check=True, env=environment())
    assert of == {"run": 9, "worker": 8, "both": 8} and in_saves >= 5
    assert rows(folder) == rows(straight)
    assert rows(folder)[-1]["train/seen"] == (steps - 1) * 16
    assert sorted(one.name for one in (folder / "checkpoints").iterdir()) == ["297", "300"]
    assert_same_state(folder, straight, steps)


def wait_for_a_save(folder: Path, process: "subprocess.Popen[Any]") -> None:
    while process.poll() is None:
        if any((folder / "checkpoints").glob("*tmp*")):
            return
        time.sleep(0.001)


def assert_same_state(folder: Path, other: Path, step: int) -> None:
    """Of all arrays of the state, the bits."""
    with ocp.StandardCheckpointer() as reader:
        found, wanted = (
            reader.restore((one / "checkpoints" / str(step) / "state").absolute())
            for one in (folder, other)
        )
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.long
def test_a_killed_worker_is_replaced(
    tmp_path: Path,
    experiment: Path,
    straight: list[dict[str, Any]],
    children: Callable[[int], list[int]],
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
    tmp_path: Path,
    experiment_file: Callable[..., Path],
    children: Callable[[int], list[int]],
    tiny_config: dict[str, Any],
    in_evaluation: bool,
) -> None:
    """As a machine that is taken away sends it, also to the workers. The bound is for a step or a
    batch of an evaluation, and a save; on this machine, beside other tests.
    """
    every = 5 if in_evaluation else None
    splits = ["unseen_artist"] if in_evaluation else []
    changes = {"steps": 60, "checkpoint": {"every": 20}, "workers": 2, "threads": 1}
    evaluated = {"splits": splits, "every": every, "batch_size": 1}
    experiment = experiment_file(tiny_config | changes | {"eval": evaluated})
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
