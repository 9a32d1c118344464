"""Every experiment runs in seconds as `:runlocal`, and its docstring is a recipe."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcl import config as configs
from mmcl import experiment, metrics_log

EXPERIMENTS = sorted((Path(__file__).resolve().parent.parent.parent / "experiments").glob("*.py"))


@pytest.mark.long
@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_runlocal(file: Path, tmp_path: Path) -> None:
    run = "import mmcl.cli; mmcl.cli.main()"
    command = [sys.executable, "-c", run, "train", f"{file}:runlocal"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    folder = tmp_path / "runs" / f"{file.stem}-runlocal"
    last = metrics_log.read(folder)[-1]
    assert last["final"] is True
    towers = [f"train/grad_norm/{name}" for name in configs.read(folder)["config"]["towers"]]
    for key in (*towers, "train/logit_scale", "train/data_wait"):
        assert np.isfinite(last[key]), key
    assert 0 <= last["train/data_wait"] <= 1
    assert any(key.startswith("eval/") for key in last)
    assert (folder / "report.html").stat().st_size < 3_000_000


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_the_docstring_is_a_recipe(file: Path) -> None:
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    for head in ("Paper:", "Claim:", "Command:", "Hardware:", "Time:", "Metric:"):
        assert f"\n{head} " in text, f"{file.name} has no line '{head}'"
    assert f"mmcl train experiments/{file.name}" in text


def variants() -> list[str]:
    """FILE:ARG of every argument that an experiment offers."""
    names = []
    for file in EXPERIMENTS:
        assigned = [
            node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Assign)
        ]
        (args,) = [node.value for node in assigned if ast.unparse(node.targets[0]) == "ARGS"]
        names += [f"experiments/{file.name}:{arg}" for arg in ast.literal_eval(args)]
    return names


@pytest.mark.parametrize("name", variants())
def test_every_variant_is_a_valid_config(name: str) -> None:
    config = configs.load(name, [])
    assert experiment.stages(config)[-1].stop == config["steps"]
