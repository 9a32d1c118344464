"""What the README shows works as it stands there."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from mmcl import experiment, metrics_log
from mmcl.train import train

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_flax_module_trains(
    tmp_path: Path,
    tiny_config: dict[str, Any],
    one_device: Mesh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tower under "Plug in a flax module of your own", beside the experiment, by its name."""
    section = README.partition("## Plug in a flax module of your own")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.splitlines()) <= 15
    (tmp_path / "my_towers.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_towers", raising=False)
    tiny_config["towers"]["image"] = {"name": "my_towers", "width": 8}
    tiny_config["schedule"]["warmup"] = 1
    tiny_config |= {"steps": 2, "eval": {"splits": []}, "checkpoint": {}}
    train("mine.py", tiny_config, tmp_path / "run", Console(quiet=True), one_device)
    assert [row["step"] for row in metrics_log.read(tmp_path / "run")] == [1, 2]


def test_every_experiment_is_listed() -> None:
    files = (Path(__file__).resolve().parent.parent / "experiments").glob("*.py")
    assert all(f"`{file.name}`" in README for file in files)


def test_the_mixture_is_one(
    tmp_path: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set under "Mixtures, faults and resume", in a config whose sources then open."""
    section = README.partition("## Mixtures, faults and resume")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "my_source.py").write_text(
        "class Source:\n"
        "    label_names = {}\n"
        "    def __len__(self):\n        return 3\n"
        "    def __getitem__(self, i):\n        return {'id': str(i), 'text': 'a word'}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_source", raising=False)
    config = ConfigDict({**tiny_config, "objective": {"name": "infonce"}})
    exec(code, {"config": config})
    (stage,) = experiment.stages(config.to_dict())
    source = experiment.open_source(stage.settings)
    assert experiment.build_mixing(stage.settings) is not None
    assert source[len(source) - 1] == {"id": "own/2", "text": "a word", "source": 1}
    assert stage.settings.eval.splits == ["emoji.unseen_artist", "own"]
    assert source[0]["id"].startswith("emoji/")
    for split in stage.settings.eval.splits:
        assert len(experiment.open_source(stage.settings, split)) > 0
