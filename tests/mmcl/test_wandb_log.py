"""A run at W&B: told every row once, by however many tries. A stand-in notes what it gets."""

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import experiment
from mmcl.metrics_log import MetricsLog, read
from mmcl.wandb_log import Wandb, WandbLog, check_installed

OPTIONS = Wandb(project="emoji", name="first", tags=["try"])


class Fake(types.ModuleType):
    """What of wandb is used: it notes what it is told."""

    errors = types.SimpleNamespace(Error=OSError)

    def __init__(self) -> None:
        super().__init__("wandb")
        self.given: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **given: Any) -> "Fake":
        self.given.append(given)
        return self

    def log(self, row: dict[str, Any], *, step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def rows(folder: Path, restored: int, *steps: int, close: bool = True) -> None:
    log = MetricsLog(folder, restored, [WandbLog(folder, OPTIONS, {"steps": 9})])
    for step in steps:
        log.write({"step": step, "train/loss": 1 / step})
    if close:
        log.close()


def test_a_resumed_run_goes_on_with_the_same_and_tells_nothing_twice(
    tmp_path: Path, fake: Fake
) -> None:
    rows(tmp_path, 0, 1, 2, 3, 4, close=False)  # killed
    rows(tmp_path, 2, 3, close=False)  # killed again before it came as far
    rows(tmp_path, 2, 3, 4, 5)
    assert fake.rows == [(step, {"train/loss": 1 / step}) for step in range(1, 6)]
    assert [row["step"] for row in read(tmp_path)] == [1, 2, 3, 4, 5]
    assert len({given["id"] for given in fake.given}) == 1
    for given in fake.given:
        assert given["resume"] == "allow" and given["dir"] == str(tmp_path)
        assert given["config"] == {"steps": 9}
        assert {k: given[k] for k in dataclasses.asdict(OPTIONS)} == dataclasses.asdict(OPTIONS)
    assert fake.finished == 1
    rows(tmp_path / "..", 0)  # another workdir is another run
    assert len({given["id"] for given in fake.given}) == 2


def test_what_wandb_refuses_is_one_line(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**given: Any) -> None:
        raise OSError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(fake, "init", refuse)
    with pytest.raises(InputError, match=r"wandb: No API key configured\. `wandb") as raised:
        WandbLog(tmp_path, OPTIONS, {})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "a"}', '{"id": "a", "step": "b"}'])
def test_what_it_remembered_is_damaged(tmp_path: Path, fake: Fake, text: str) -> None:
    (tmp_path / "wandb.json").write_text(text)
    with pytest.raises(InputError, match="wandb.json is damaged; delete it, and W&B gets another"):
        WandbLog(tmp_path, OPTIONS, {})
    assert not fake.given


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed(None)
    with pytest.raises(InputError, match=r"pip install 'mmcl\[wandb\]'"):
        check_installed(OPTIONS)


def test_its_keys_are_checked(tiny_config: dict[str, Any]) -> None:
    configs.override(tiny_config, "wandb.project", "emoji")
    assert experiment.settings(tiny_config).wandb == Wandb("emoji")
    with pytest.raises(InputError, match="Did you mean 'entity'"):
        experiment.settings(tiny_config | {"wandb": {"project": "emoji", "entitty": "us"}})
    with pytest.raises(InputError, match="project"):
        experiment.settings(tiny_config | {"wandb": {"name": "first"}})


OFFLINE = """
import sys
from pathlib import Path
from mmcl.metrics_log import MetricsLog
from mmcl.wandb_log import Wandb, WandbLog

folder = Path(sys.argv[1])
for restored, steps in ((0, (1, 2)), (1, (2, 3))):
    log = MetricsLog(folder, restored, [WandbLog(folder, Wandb("emoji"), {"steps": 3})])
    for step in steps:
        log.write({"step": step, "train/loss": 1 / step, "hardware/devices": "1 × cpu"})
    log.close()
"""


def test_the_real_one_takes_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], check=True)
    kept = json.loads((tmp_path / "wandb.json").read_text())
    assert kept["step"] == 3
    files = list((tmp_path / "wandb").glob(f"offline-run-*/run-{kept['id']}.wandb"))
    assert len(files) == 2  # one a try, to be synced into one run
