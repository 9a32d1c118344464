"""Two processes of four devices train as one of eight does, and as one device."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmcl import config as configs
from mmcl import experiment, metrics_log, workdir
from mmcl.built_stage import build
from mmcl.checkpoint import Checkpoints
from mmcl.mesh import data_mesh

pytestmark = pytest.mark.long

STEPS = 20
RUN = "import mmcl.cli; mmcl.cli.main()"


RUNNING: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """Whatever a test came to."""
    yield
    for process in RUNNING:
        process.kill()
        process.wait()
    RUNNING.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def tiny(home: Path, experiment_file: Callable[..., Path], tiny_config: dict[str, Any]) -> Path:
    """Its optimiser's memory after one step is the gradient."""
    changes = {
        "steps": STEPS,
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "eval": {"splits": ["unseen_artist"], "batch_size": 16},
        "checkpoint": {"every": 1, "keep": STEPS},
    }
    return experiment_file(tiny_config | changes, home)


def started(words: list[str], devices: int, log: Path) -> subprocess.Popen[bytes]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONFAULTHANDLER"] = "1"  # SIGABRT: each thread writes where it is
    with log.open("wb") as file:
        command = [sys.executable, "-c", RUN, *words]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    RUNNING.append(process)
    return process


def two(words: list[str], folder: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meet = ["--coordinator", f"localhost:{port}", "--processes", "2", "--wait", "120"]
    return [
        started([*words, *meet, "--process", str(i)], 4, folder.with_suffix(f".{i}.log"))
        for i in range(2)
    ]


def ended(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    try:
        codes = [process.wait(400) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.send_signal(signal.SIGABRT)
        codes = [process.wait() for process in processes]
    logs = [file.read_text() for file in sorted(folder.parent.glob(f"{folder.name}.*log"))]
    assert codes == [0] * len(processes), logs


@pytest.fixture
def one_device_run(home: Path, tiny: Path) -> Path:
    folder = home / "one"
    if not folder.exists():
        words = ["train", str(tiny), "--workdir", str(folder)]
        ended([started(words, 1, folder.with_suffix(".log"))], folder)
    return folder


def gradient(tiny: Path, folder: Path) -> list[np.ndarray]:
    """What step 1 left in the optimiser."""
    stage = experiment.stages(configs.load(str(tiny)))[0]
    mesh = data_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        like = build(stage, mesh).init()
        checkpoints = Checkpoints(folder)
        state = checkpoints.restore(like, 1).state
        checkpoints.close()
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.optimizer)]


@pytest.mark.parametrize(
    ("count", "axes"),
    [
        (1, {}),
        (2, {}),
        (2, {"data": 2, "fsdp": 4}),
        (2, {"slice": 2, "data": 1, "fsdp": 2, "tensor": 2}),
    ],
    ids=lambda value: "-".join(map(str, value.items())) if isinstance(value, dict) else str(value),
)
def test_any_mesh_trains_alike(home, tiny, one_device_run, count, axes):
    folder = home / f"{count}-{len(axes)}-{axes.get('tensor', 0)}"
    words = ["train", str(tiny), "--workdir", str(folder)]
    words += [f"--config.mesh.{axis}={size}" for axis, size in axes.items()]
    if count == 1:
        ended([started(words, 8, folder.with_suffix(".log"))], folder)
    else:
        ended(two(words, folder), folder)

    one, many = metrics_log.read(one_device_run), metrics_log.read(folder)
    assert [row["step"] for row in many] == list(range(1, STEPS + 1))
    drift = [abs(a["train/loss"] / b["train/loss"] - 1) for a, b in zip(many, one, strict=True)]
    assert drift[0] <= 1e-6 and max(drift) <= 1e-4
    for name in ("train/grad_norm/image", "train/grad_norm/text"):
        assert many[0][name] == pytest.approx(one[0][name], rel=2e-5)
    for a, b in zip(gradient(tiny, folder), gradient(tiny, one_device_run), strict=True):
        assert np.abs(a - b).max() <= 2e-5 * np.abs(b).max()
    evaluated = [name for name in one[-1] if name.startswith("eval/")]
    assert evaluated
    for name in evaluated:
        assert many[-1][name] == pytest.approx(one[-1][name], abs=0.05), name
    print(f"drift {count} {axes}: step 1 {drift[0]:.1e}, the worst of {STEPS} {max(drift):.1e}")


def test_a_run_goes_on_with_other_processes(home, tiny, one_device_run):
    """Begun by two, killed, ended by one: each step once, and the records are the same."""
    folder = home / "moved"
    words = ["train", str(tiny), "--workdir", str(folder)]
    processes = two(words, folder)
    while not any(row["step"] >= 5 for row in metrics_log.read(folder)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    for process in processes:
        process.kill()
        process.wait()
    ended([started(words, 1, folder.with_suffix(".9.log"))], folder)
    one, moved = metrics_log.read(one_device_run), metrics_log.read(folder)
    assert [row["step"] for row in moved] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [row["train/loss"] for row in moved], [row["train/loss"] for row in one], rtol=1e-4
    )


def test_at_a_url_each_uploads_its_part(home, tiny, one_device_run, monkeypatch):
    """Nothing but the URL is shared: begun by two, killed, gone on with by two, asked by one."""
    monkeypatch.setenv("TMPDIR", str(home))  # where those that are killed leave their folders
    bucket = home / "bucket" / "run"
    url = f"file://{bucket}"
    words = ["train", str(tiny), "--workdir", url, "--config.mesh.fsdp=8"]
    words += ["--config.checkpoint.every=3", "--config.checkpoint.keep=2"]
    processes = two([*words, "--config.log_every=1"], home / "far")
    marks = [f"checkpoints/6/.arrived-{i}-of-2" for i in range(2)]
    while not all((bucket / mark).is_file() for mark in marks):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    for process in processes:
        process.kill()
        process.wait()
    ended(two(words, home / "far-again"), home / "far-again")
    assert "Going on from step" in (home / "far-again.0.log").read_text()
    one, far = metrics_log.read(one_device_run), metrics_log.read(bucket)
    assert [row["step"] for row in far] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [row["train/loss"] for row in far], [row["train/loss"] for row in one], rtol=1e-4
    )
    assert (bucket / "report.html").is_file()
    found = {file.name for file in (bucket / "checkpoints").iterdir()}
    assert found == {"18", "20"}
    ended([started(["eval", url, "--json"], 1, home / "far-eval.log")], home / "far-eval")
    name = "eval/unseen_artist/text_to_image/recall@10"
    assert f'"{name}": ' in (home / "far-eval.log").read_text()


def test_eval_in_two_processes(home, tiny, one_device_run):
    """Numbers as training left them; only process 0 speaks."""
    out = home / "evaluated"
    ended(two(["eval", str(one_device_run), "--json"], out), out)
    found, silent = (out.with_suffix(f".{i}.log").read_text() for i in range(2))
    last = metrics_log.read(one_device_run)[-1]
    name = "eval/unseen_artist/text_to_image/recall@10"
    assert f'"{name}": {last[name]}' in found
    assert "eval/" not in silent


def test_sigterm_to_one_stops_both(home, tiny):
    """At the same step, with the state saved; then they go on."""
    folder = home / "preempted"
    words = ["train", str(tiny), "--workdir", str(folder), "--config.steps=120"]
    words += ["--config.checkpoint.every=50"]
    processes = two(words, folder)
    while not any(row["step"] >= 5 for row in metrics_log.read(folder)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    ended(processes, folder)
    stopped = metrics_log.read(folder)[-1]["step"]
    said = folder.with_suffix(".0.log").read_text()
    assert f"Stopped by SIGTERM at step {stopped} of 120; the state is saved." in said
    assert stopped < 120 and workdir.newest_step(folder) == stopped
    ended(two(words, folder), folder)
    assert f"Going on from step {stopped} of 120." in folder.with_suffix(".0.log").read_text()
    assert [row["step"] for row in metrics_log.read(folder)] == list(range(1, 121))


@pytest.mark.parametrize("dies", [0, 1])
def test_where_one_dies_the_other_ends(home, tiny, dies):
    folder = home / f"dies-{dies}"
    words = ["train", str(tiny), "--workdir", str(folder), "--config.steps=100000"]
    processes = two(words, folder)
    while not metrics_log.read(folder):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[dies].kill()
    assert processes[1 - dies].wait(300) != 0


def test_where_one_does_not_come_the_other_says_so(home, tiny):
    log = home / "alone.log"
    words = ["train", str(tiny), "--workdir", str(home / "alone")]
    words += ["--coordinator", "localhost:1", "--processes", "2", "--process", "1", "--wait", "5"]
    assert started(words, 4, log).wait(100) == 2
    assert log.read_text().startswith("mmcl: process 1 of 2 did not meet all others at localhost:1")
    assert not (home / "alone").exists()


def test_a_fault_of_the_first_ends_both(home, tiny):
    folder = home / "taken"
    folder.mkdir()
    (folder / "something").touch()
    processes = two(["train", str(tiny), "--workdir", str(folder)], folder)
    assert [process.wait(100) for process in processes] == [2, 2]
    logs = [folder.with_suffix(f".{i}.log").read_text() for i in range(2)]
    assert "holds files but no run" in logs[0]
    assert "Process 0 cannot go on, and says why." in logs[1]
