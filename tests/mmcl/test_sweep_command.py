"""`mmcl sweep`: what it starts, skips and reports; a small program stands in for training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mmcl.runs
from mmcl.cli import cli
from mmcl.metrics_log import read

TRAINED = """
import json, sys
from pathlib import Path
words = dict(word.split("=", 1) for word in sys.argv if word.startswith("--config"))
folder = Path(sys.argv[sys.argv.index("--workdir") + 1])
seed, peak = int(words["--config.seed"]), float(words["--config.schedule.peak"])
with open("started.txt", "a") as file:
    file.write(folder.name + "\\n")
if seed == 7:
    sys.exit("mmcl: it cannot be")
(folder / "checkpoints" / "3").mkdir(parents=True)
last = {"step": 3, "train/loss": peak, "eval/val/recall@1": seed * 0.1 - peak, "final": True}
(folder / "metrics.jsonl").write_text(json.dumps(last))
(folder / "config.json").write_text(json.dumps({"experiment": sys.argv[2], "config": CONFIG}))
print("trained")
"""
EXPERIMENT = "experiments/quickstart.py:runlocal"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a sweep works, its runs "trained" by a small program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mmcl.runs, "_TRAIN", TRAINED.replace("CONFIG", "{}"))
    monkeypatch.setattr("mmcl.workdir.check", lambda *args: None)
    return tmp_path


def sweep(*words: str, peak: str = "1e-3,2e-3", seed: str = "1,2") -> Result:
    overs = ["--over", f"config.schedule.peak={peak}", "--over", f"config.seed={seed}"]
    words = ("sweep", EXPERIMENT, *overs, "--folder", "grid", "--config.steps=3", *words)
    return CliRunner().invoke(cli, list(words), prog_name="mmcl")


def started(folder: Path) -> list[str]:
    file = folder / "started.txt"
    return file.read_text().split() if file.is_file() else []


def test_every_combination_is_trained_once_and_the_best_is_first(trained: Path) -> None:
    result = sweep()
    assert result.exit_code == 0, result.output
    names = [f"schedule.peak={peak},seed={seed}" for peak in ("1e-3", "2e-3") for seed in "12"]
    assert started(trained) == names
    table = json.loads((trained / "grid/sweep.json").read_text())
    assert table["sorted_by"] == ["eval/val/recall@1"]
    best, *_, worst = table["runs"]
    assert best["config"] == {"schedule.peak": "1e-3", "seed": "2"}
    assert best["run"] == "grid/schedule.peak=1e-3,seed=2" and best["status"] == "done"
    assert best["metrics"]["eval/val/recall@1"] == pytest.approx(0.199)
    assert worst["config"] == {"schedule.peak": "2e-3", "seed": "1"}
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["1e-3", "2", "0.199", "0.001"] in lines

    again = sweep("--metric", "-train/loss", seed="1,2,3")
    assert started(trained)[4:] == ["schedule.peak=1e-3,seed=3", "schedule.peak=2e-3,seed=3"]
    assert again.stdout.count("finished before") == 4


def test_json_is_all_that_is_printed(trained: Path) -> None:
    result = sweep("--json", seed="1")
    assert json.loads(result.stdout) == json.loads((trained / "grid/sweep.json").read_text())


def test_a_run_that_fails_is_named_and_the_others_go_on(trained: Path) -> None:
    result = sweep(seed="1,7,2", peak="1e-3")
    assert result.exit_code == 1
    assert len(started(trained)) == 3
    assert "mmcl: grid/schedule.peak=1e-3,seed=7 failed, with exit code 1." in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mmcl: 1 of 3 runs failed: grid/")
    rows = json.loads((trained / "grid/sweep.json").read_text())["runs"]
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    sweep(seed="1,7,2", peak="1e-3")
    assert started(trained)[3:] == ["schedule.peak=1e-3,seed=7"]  # tried again, alone


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "config.schedule.peek=1,2"], "Did you mean 'peak'"),
        (["--over", "config.optimizer.b1=0.9,high"], "b1"),
        (["--over", "config.embed_dim=32,64.5"], "embed_dim"),
        (["--over", "config.seed=3"], "given twice"),
        (["--metrik", "x"], "no option '--metrik'"),
    ],
)
def test_all_is_checked_before_anything_starts(trained: Path, words: list[str], said: str) -> None:
    result = sweep(*words)
    assert result.exit_code == 2 and said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert started(trained) == [] and not (trained / "grid").exists()


def test_a_metric_that_no_run_has(trained: Path) -> None:
    result = sweep("--metric", "eval/val/recal@1")
    assert result.exit_code == 2 and "Did you mean 'eval/val/recall@1'" in result.stderr
    assert len(started(trained)) == 1  # it is known after the first


@pytest.mark.long
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The real thing: the first run is stopped in the middle, by a signal to the sweep alone."""
    command: list[Any] = [sys.executable, "-c", "from mmcl.cli import main; main()", "sweep"]
    command += [EXPERIMENT, "--folder", tmp_path / "grid", "--over", "config.seed=0,1"]
    command += ["--config.steps=40", "--config.log_every=1", "--config.schedule.warmup=2"]
    first = tmp_path / "grid/seed=0"
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ}, stderr=subprocess.PIPE)
    while not read(first):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130 and b"Go on with:" in said
    assert 0 < read(first)[-1]["step"] < 40 and list((first / "checkpoints").iterdir())
    assert not (tmp_path / "grid/seed=1").exists()
    subprocess.run(command, cwd=tmp_path, check=True)
    for seed in (0, 1):
        steps = [row["step"] for row in read(tmp_path / f"grid/seed={seed}")]
        assert steps == list(range(1, 41))
