"""The real trainer on mixtures and on records that cannot be used."""

import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from data_pipelines.errors import InputError
from mmcl import experiment, metrics_log
from mmcl.built_stage import build
from mmcl.live import LiveLine
from mmcl.load import load
from mmcl.report.report import write_report
from mmcl.search import search
from mmcl.train import train

QUIET = Console(quiet=True)
CLOCKS = ("time", "train/examples_per_s", "train/data_wait")

OWN = '''
import numpy as np
import jax.numpy as jnp
from mmcl.objectives import infonce


class Source:
    """Tones and their names; some records are bad."""

    label_names = {"concept": [str(i) for i in range(8)]}

    def __init__(self, *, kind: str = "a", n: int = 24, split: str = "train", cut: list[int] = [],
                 blank: list[int] = []):
        self.kind, self.n, self.cut, self.blank = kind, n, cut, blank

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i in self.cut:
            raise OSError("image file is truncated")
        tone = np.random.default_rng([i, len(self.kind)]).normal(size=6).astype(np.float32)
        return {
            "id": f"{i}", "tone": tone, "word": " " if i in self.blank else f"{self.kind} {i}",
            "teacher": np.full(3, i, np.float32), "concept": i % 8,
        }


def keep(value, *, rng, train):
    return {"value": value}


def noise(value, *, rng, train):
    return {"value": value + train * rng.normal(size=value.shape).astype(np.float32) / 10}


def mistaken(value, *, rng, train):
    return {"value": value + None} if int(value[0] * 1000) % 7 == 3 else {"value": value}


def reweigh(moment, state, *, push: float):
    """More of the source with the larger loss, and a little more at every call."""
    calls = (state or {"calls": 0})["calls"] + 1
    assert len(moment.metrics) == 3 and int(moment.state.step) == moment.step
    losses = {
        name: np.nanmean([row[f"by_source/tone_word/{name}"] for row in moment.metrics])
        for name in moment.weights
    }
    return {n: float(np.exp(push * x) * calls) for n, x in losses.items()}, {"calls": calls}


def swap(moment, state):
    return {"a": 0.0, "b": 1.0}, state


class Taught(infonce.Objective):
    def __call__(self, params, state, embeddings, batch, key):
        made = super().__call__(params, state, embeddings, batch, key)
        seen = jnp.mean(batch["teacher"]["value"] * batch["present"]["teacher"][:, None])
        return made._replace(metrics={**made.metrics, "seen": seen})
'''


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_tones.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_tones", None)


@pytest.fixture
def config() -> dict[str, Any]:
    own = {"name": "own_tones"}
    return {
        "steps": 10,
        "batch_size": 8,
        "embed_dim": 4,
        "source": {
            "name": "mixture",
            "sources": {
                "a": {**own, "kind": "a", "cut": [3]},
                "b": {**own, "kind": "bb", "n": 40, "blank": [5]},
            },
            "weights": {"a": 1.0, "b": 1.0},
        },
        "transforms": {
            "tone": [{"name": "own_tones.noise"}],
            "word": [{"name": "ngrams.hashed", "length": 16}],
        },
        "towers": {
            "tone": {"name": "mlp", "width": 8},
            "word": {"name": "ngrams", "buckets": 32},
        },
        "objective": {"name": "infonce", "pairs": [["tone", "word"]]},
        "optimizer": {"name": "adamw"},
        "schedule": {"name": "constant", "peak": 1e-2},
        "log_every": 1,
        "checkpoint": {"every": 4},
    }


def run(config: dict[str, Any], folder: Path, mesh: Mesh) -> list[dict[str, Any]]:
    train("own.py", copy.deepcopy(config), folder, QUIET, mesh)
    return rows(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: repr(value) for key, value in row.items() if key not in CLOCKS}
        for row in metrics_log.read(folder)
    ]


def rejected(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def killed(
    config: dict[str, Any], folder: Path, mesh: Mesh, patch: pytest.MonkeyPatch, after: int
) -> None:
    """Run until a step is made, but not logged."""
    step = LiveLine.step

    def kill(self: LiveLine, at: int) -> None:
        if at == after + 1:
            raise InterruptedError
        step(self, at)

    with patch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(LiveLine, "step", kill)
        run(config, folder, mesh)
    for _ in range(100):  # what was being saved is saved by a thread
        if (folder / "checkpoints" / "4").is_dir():
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint")


def test_a_mixture_that_follows_its_losses_goes_on_bit_for_bit(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two changes of weights; resumed with other threads and with a worker."""
    config["mixing"] = {"name": "own_tones.reweigh", "every": 3, "push": 0.5}
    straight = run(config, tmp_path / "straight", one_device)
    weights = [row["train/weight/a"] for row in straight]
    # the row of a step tells the weights of the next
    assert [a == b for a, b in zip(weights, weights[1:])] == [
        True, False, True, True, False, True, True, False, True,
    ]  # fmt: skip
    kinds = {(row["source"], row["kind"], row["index"]) for row in rejected(tmp_path / "straight")}
    assert kinds == {("a", "truncated", 3), ("b", "empty", 24 + 5)}
    folder = tmp_path / "killed"
    killed(config, folder, one_device, monkeypatch, after=5)
    assert run(config | {"workers": 1, "threads": 1}, folder, one_device) == straight
    assert rejected(folder) == rejected(tmp_path / "straight")
    told = [(row["epoch"], row["position"]) for row in rejected(folder)]
    assert len(set(told)) == len(told) >= 2


def test_the_next_batch_has_the_new_weights_and_the_next_stage_its_own(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh
) -> None:
    config["mixing"] = {"name": "own_tones.swap", "every": 3}
    config["source"]["weights"] = {"a": 1.0, "b": 0.0}
    even = {"steps": 4, "source": {"weights": {"b": 1.0}}, "mixing": None}
    found = run(config | {"stages": [{"steps": 6}, even]}, tmp_path / "run", one_device)
    assert [row["train/weight/a"] for row in found] == ["1.0"] * 2 + ["0.0"] * 4 + ["1.0"] * 4
    first, second = found[:6], found[6:]
    for n, row in enumerate(first, 1):
        assert row["train/epoch/a"] == repr(min(n, 3) * 8 / 24)
        assert row["train/epoch/b"] == repr(max(n - 3, 0) * 8 / 40)
        assert (row["train/by_source/tone_word/a"] == "nan") == (n > 3)
        assert (row["train/by_source/tone_word/b"] == "nan") == (n <= 3)
    for n, row in enumerate(second, 1):
        of_a, of_b = (24 * float(row["train/epoch/a"]), 40 * float(row["train/epoch/b"]))
        assert round(of_a + of_b) == 8 * n and abs(of_a - of_b) <= 4


def test_too_many_bad_records_end_the_run(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh
) -> None:
    config["source"] = {"name": "own_tones", "cut": [1, 4, 7, 9], "blank": [2]}
    config["faults"] = {"share": 0.01}
    folder = tmp_path / "run"
    with pytest.raises(InputError) as raised:
        run(config, folder, one_device)
    said = str(raised.value)
    assert "more than config.faults.share=0.01 allows" in said and "\n" not in said
    assert f"{folder / 'rejected.jsonl'} lists them" in said
    listed = rejected(folder)
    assert len(listed) > 5 and f"{len(listed)} of {8 * listed[-1]['step']} records" in said
    assert "truncated" in said and "empty" in said
    assert {row["source"] for row in listed} == {"own_tones"}
    # the same command goes on when more is allowed, and lists each once
    config["faults"]["share"] = 0.5
    found = run(config, folder, one_device)
    assert len(found) == 10
    listed = rejected(folder)
    assert len({row["position"] for row in listed}) == len(listed)
    total = sum(int(v) for k, v in found[-1].items() if k.startswith("train/rejected/"))
    assert total == len(listed)


def test_a_mistake_in_a_transform_ends_the_run_at_once(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh
) -> None:
    config["transforms"]["tone"] = [{"name": "own_tones.mistaken"}]
    config["faults"] = {"share": 1.0}
    with pytest.raises(TypeError, match="unsupported operand") as raised:
        run(config, tmp_path / "run", one_device)
    assert any("This was record" in note for note in raised.value.__notes__)


def test_modalities_without_a_tower_are_for_the_objective(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh
) -> None:
    """Trained, evaluated without the bad records, searched and reported."""
    config["source"] = {"name": "own_tones", "n": 30, "cut": [0, 29], "blank": [16]}
    config["faults"] = {"share": 0.5}
    config["transforms"]["teacher"] = [{"name": "own_tones.keep"}]
    config["objective"]["name"] = "own_tones.Taught"
    config["eval"] = {"splits": ["val"], "batch_size": 8, "every": 5}
    folder = tmp_path / "run"
    splits = train("own.py", config, folder, QUIET, one_device).splits
    found = metrics_log.read(folder)
    assert all(0 < row["train/seen"] < 30 for row in found)
    assert found[-1]["train/epoch"] == 80 / 30
    (val,) = splits
    assert val.ids == [str(i) for i in range(30) if i not in (0, 16, 29)]
    assert val.z.keys() == val.shown.keys() == {"tone", "word"}
    assert all(len(z) == 27 for z in val.z.values())
    assert val.labels["concept"].tolist() == [int(id) % 8 for id in val.ids]
    assert found[-1]["eval/val/tone_to_word/queries"] == 27
    assert found[-1]["eval/val/rejected/truncated"] == 2
    assert found[-1]["eval/val/rejected/empty"] == 1
    evaluated = [row for row in rejected(folder) if "split" in row]
    assert [(row["split"], row["index"], row["step"]) for row in evaluated] == [
        ("val", 0, 5), ("val", 16, 5), ("val", 29, 5),
    ]  # fmt: skip
    model = load(folder, one_device).model
    assert len(search(model, "a 3", query="word", among="tone", k=3)) == 3
    again = model.embed("val")
    np.testing.assert_array_equal(again.z["tone"], val.z["tone"])
    report = write_report(
        folder, name="own", config=config, rows=found, splits=splits, next_steps=[]
    )
    assert "own" in report.read_text()


def test_a_split_with_too_many_bad_records_is_not_judged(
    config: dict[str, Any], one_device: Mesh
) -> None:
    config["source"] = {"name": "own_tones", "n": 30}
    (stage,) = experiment.stages(config)
    built = build(stage, one_device)
    model = built.model(built.init())
    model.settings.source["cut"] = [0, 1, 2, 3, 4]  # 1 % of the 500 that a share is of at least
    assert len(model.embed("val").ids) == 25
    model.settings.source["cut"] = [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="without 6 of its records.*: 6 truncated.* allows"):
        model.embed("val")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"source": {"name": "own_tones"}, "mixing": {"name": "piecewise_linear", "every": 1,
          "at": [1], "weights": [{}]}}, "config.source is no 'mixture'"),
        ({"mixing": {"name": "piecewise"}}, "no 'piecewise'. Did you mean 'piecewise_linear'?"),
        ({"mixing": {"name": "own_tones.swap"}}, "config.mixing.every: missing"),
        ({"mixing": {"name": "own_tones.swap", "every": 0}}, "config.mixing.every: 0 should be 1"),
        ({"mixing": {"name": "own_tones.swap", "every": 1, "x": 1}}, "config.mixing.x: unknown"),
    ],
)  # fmt: skip
def test_wrong_mixing_is_refused(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(config | change, tmp_path / "run", one_device)
    assert not (tmp_path / "run").exists()
