"""`mmcl compare`: what it starts, skips and tells; a small program stands in for training."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import mmcl.runs
from mmcl import metrics_log
from mmcl.cli import cli
from mmcl.report.forest import forest

TRAINED = """
import json, sys
from pathlib import Path
words = dict(word.split("=", 1) for word in sys.argv if word.startswith("--config"))
folder = Path(sys.argv[sys.argv.index("--workdir") + 1])
seed, is_b = int(words["--config.seed"]), folder.name.startswith("b")
with open("started.txt", "a") as file:
    file.write(" ".join([folder.name, *sorted(words)]) + "\\n")
if seed == 4:
    sys.exit("mmcl: it cannot be")
steps = words["--config.steps"]
(folder / "checkpoints" / steps).mkdir(parents=True)
recall = 0.4 + 0.01 * seed + (0.1 + 0.01 * seed) * is_b
last = {"step": int(steps), "time": 2.0, "train/loss": 1.5, "eval/val/recall@1": recall,
        "eval/val/chance@1": 0.1, "final": True}
(folder / "metrics.jsonl").write_text(json.dumps(last))
(folder / "config.json").write_text(json.dumps({"experiment": sys.argv[2], "config": {}}))
"""
A, B = "experiments/quickstart.py:runlocal", "experiments/siglip_emoji.py:runlocal"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mmcl.runs, "_TRAIN", TRAINED)
    monkeypatch.setattr("mmcl.workdir.check", lambda *args: None)
    return tmp_path


def compare(*words: str) -> Result:
    words = ("compare", A, B, "--folder", "both", "--steps", "3", *words)
    return CliRunner().invoke(cli, list(words), prog_name="mmcl")


def test_both_are_trained_on_the_same_seeds_and_compared(trained: Path) -> None:
    result = compare("--seeds", "2", "--config.log_every=1")
    assert result.exit_code == 0, result.output
    lines = (trained / "started.txt").read_text().splitlines()
    keys = "--config.log_every --config.seed --config.steps"
    assert lines == [f"{side}-seed={seed} {keys}" for seed in (0, 1) for side in "ab"]
    told = json.loads((trained / "both/compare.json").read_text())
    assert told["a"] == A and told["b"] == B and told["seeds"] == [0, 1]
    assert told["config"] == {"log_every": "1", "steps": "3"}
    recall = told["metrics"]["eval/val/recall@1"]
    assert recall["a"] == pytest.approx([0.40, 0.41]) and recall["b"] == pytest.approx([0.5, 0.52])
    assert recall["difference"] == pytest.approx(0.105)
    assert recall["interval"] == pytest.approx(
        [0.105 - 12.706 * 0.005, 0.105 + 12.706 * 0.005], abs=1e-4
    )
    words = [line.split() for line in result.stdout.splitlines()]
    assert [
        "val/recall@1",
        *["0.405", "±", "0.007", "0.510", "±", "0.014", "+0.105", "+0.041", "…", "+0.169"],
    ] in words
    assert not any(line and line[0] == "val/chance@1" for line in words)  # the same in all
    assert Image.open(trained / "both/compare.png").width > 500

    again = compare("--seeds", "3")
    assert again.exit_code == 0 and again.stdout.count("finished before") == 4
    assert json.loads((trained / "both/compare.json").read_text())["seeds"] == [0, 1, 2]


def test_a_seed_that_failed_is_left_out(trained: Path) -> None:
    result = compare("--seeds", "5", "--json")
    assert result.exit_code == 1
    assert "2 of 10 runs failed: both/a-seed=4, both/b-seed=4." in result.stderr
    assert json.loads(result.stdout)["seeds"] == [0, 1, 2, 3]


def test_a_claim_is_written_into_the_table_of_results(trained: Path) -> None:
    result = compare("--seeds", "3", "--claim", "eval/val/recall@1", "--results", "R.md")
    assert result.exit_code == 0, result.output
    assert "is shown: +0.1100" in result.output
    table = (trained / "R.md").read_text()
    assert f"| {B} | {A} | val/recall@1 is higher |" in table
    assert "| yes |" in table


def test_one_seed_has_no_interval(trained: Path) -> None:
    result = compare("--seeds", "1", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["eval/val/recall@1"]["interval"] is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([A], f"`mmcl compare` takes two FILE[:ARG]; there is one: {A}."),
        ([A, A], f"{A} is given twice; there is nothing to compare."),
        ([A, B, "--seed", "3"], "There is no option '--seed'. Did you mean '--seeds'?"),
        ([A, B, "--config.nothing=3"], "nothing"),
    ],
)
def test_what_is_wrong_is_said(trained: Path, words: list[str], line: str) -> None:
    result = CliRunner().invoke(cli, ["compare", *words], prog_name="mmcl")
    assert result.exit_code == 2 and line in result.stderr
    assert not (trained / "started.txt").exists() and not (trained / "runs").exists()


def test_another_budget_is_told(trained: Path) -> None:
    (trained / "larger.py").write_text(
        "from experiments import quickstart\n\n\n"
        "def get_config(arg=None):\n"
        "    config = quickstart.get_config('runlocal')\n"
        "    config.batch_size *= 2\n"
        "    return config\n"
    )
    words = ["compare", A, "larger.py", "--steps", "3", "--seeds", "1"]
    result = CliRunner().invoke(cli, words, prog_name="mmcl")
    assert result.exit_code == 0, result.output
    assert "the two differ in config.batch_size, so not only in" in result.stderr
    assert metrics_log.read(trained / "runs/quickstart-runlocal-vs-larger/b-seed=0")


def test_nothing_to_draw_is_drawn_empty(tmp_path: Path) -> None:
    forest([], "a", "b", tmp_path / "it.png")
    assert (tmp_path / "it.png").is_file()
