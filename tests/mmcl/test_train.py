"""The real trainer on real data: what it leaves behind, resume, devices, stages, Ctrl-C."""

import copy
import io
import itertools
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from data_pipelines.errors import InputError
from mmcl import experiment, metrics_log, workdir
from mmcl.bench.step import compilations
from mmcl.built_stage import build
from mmcl.checkpoint import Checkpoints
from mmcl.evals.embedded import Embedded
from mmcl.feed import Feed
from mmcl.live import LiveLine
from mmcl.load import load
from mmcl.mesh import Axes, data_mesh, make_mesh
from mmcl.model import Model
from mmcl.train import Interrupted, train

pytestmark = pytest.mark.usefixtures("shared_builds")
QUIET = Console(quiet=True)
CLOCKS = ("time", "train/examples_per_s", "train/data_wait")  # what differs from run to run


def run(config: dict[str, Any], folder: Path, mesh: Mesh) -> list[dict[str, Any]]:
    train("experiments/quickstart.py", copy.deepcopy(config), folder, QUIET, mesh)
    return rows(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in CLOCKS}
        for row in metrics_log.read(folder)
    ]


def params(folder: Path, mesh: Mesh) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load(folder, mesh).model.params)]


def await_saved(folder: Path, *steps: int) -> None:
    """What is being saved when a run is killed is soon complete: here nothing else dies."""
    deadline = time.monotonic() + 60
    while workdir.saved_steps(folder) != list(steps) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workdir.saved_steps(folder) == list(steps)


def assert_same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture
def straight(shared: Path, tiny_config: dict[str, Any], one_device: Mesh) -> Path:
    """One run of 6 steps, never stopped; trained once for all tests of this file."""
    folder = shared / "straight"
    if not folder.exists():
        run(tiny_config, folder, one_device)
    return folder


def test_a_run_leaves_what_it_should(straight: Path, tiny_config: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line.get("final", False) for line in lines] == [False] * 5 + [True]
    for key in ("time", "train/loss", "train/lr", "train/logit_scale", "train/examples_per_s",
                "train/data_wait", "train/grad_norm/image", "train/grad_norm/text"):  # fmt: skip
        assert all(np.isfinite(line[key]) for line in lines), key
    evaluated = [line["step"] for line in lines if any(key.startswith("eval/") for key in line)]
    assert evaluated == [3, 6]
    assert 0 <= lines[-1]["eval/unseen_artist/text_to_image/recall@10"] <= 1
    assert json.loads((straight / "config.json").read_text())["config"] == tiny_config
    assert list((straight / "tensorboard").glob("events*"))
    (chosen,) = json.loads((straight / "engine.json").read_text())["cpu"].values()
    assert chosen["impl"] == "xla" and chosen["blocks"] == [16, 16]
    steps = sorted(int(folder.name) for folder in (straight / "checkpoints").iterdir())
    assert steps == [2, 4, 6]


@pytest.mark.long
def test_the_loss_falls_when_there_is_little_to_learn(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    tiny_config |= {"steps": 150, "eval": {"splits": []}, "checkpoint": {}, "log_every": 10}
    tiny_config["source"]["limit"] = 8
    tiny_config["transforms"]["image"] = tiny_config["transforms"]["image"][1::3]
    losses = [row["train/loss"] for row in run(tiny_config, tmp_path / "run", one_device)]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("killed_at", [3, 4])
def test_a_killed_run_goes_on_bit_for_bit(
    straight: Path,
    tmp_path: Path,
    tiny_config: dict[str, Any],
    one_device: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
) -> None:
    class Killed(Exception):
        pass

    step = LiveLine.step

    def kill(self: LiveLine, at: int) -> None:
        if at == killed_at + 1:
            raise Killed
        step(self, at)

    folder = tmp_path / "run"
    monkeypatch.setattr(LiveLine, "step", kill)
    with pytest.raises(Killed):
        run(tiny_config, folder, one_device)
    await_saved(folder, *range(2, killed_at + 1, 2))
    monkeypatch.setattr(LiveLine, "step", step)
    assert [row["step"] for row in rows(folder)] == list(range(1, killed_at + 1))
    assert run(tiny_config, folder, one_device) == rows(straight)
    assert_same_bits(params(folder, one_device), params(straight, one_device))


@pytest.mark.long
def test_a_narrow_optimiser_state_goes_on_bit_for_bit(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    tiny_config["optimizer"]["state_dtype"] = "bfloat16"
    tiny_config |= {"eval": {"splits": []}, "checkpoint": {"every": 3}}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    written = run(tiny_config, whole, one_device)
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints" / "6")
    assert run(tiny_config, stopped, one_device) == written

    def optimizer(folder: Path) -> list[np.ndarray]:
        with jax.set_mesh(one_device):
            like = build(experiment.stages(tiny_config)[0], one_device).init()
            checkpoints = Checkpoints(folder)
            state = checkpoints.restore(like, 6).state
            checkpoints.close()
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state.optimizer)]

    kept = optimizer(whole)
    assert sum(leaf.dtype == jnp.bfloat16 for leaf in kept) > 20
    assert_same_bits(optimizer(stopped), kept)


def test_ctrl_c_saves_at_once_and_the_run_goes_on(
    straight: Path,
    tmp_path: Path,
    tiny_config: dict[str, Any],
    one_device: Mesh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = LiveLine.step

    def press(self: LiveLine, at: int) -> None:
        step(self, at)
        if at == 3:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "run"
    monkeypatch.setattr(LiveLine, "step", press)
    with pytest.raises(Interrupted, match="step 3 of 6"):
        run(tiny_config, folder, one_device)
    assert (folder / "checkpoints" / "3").is_dir()
    monkeypatch.setattr(LiveLine, "step", step)
    assert run(tiny_config, folder, one_device) == rows(straight)


@pytest.mark.parametrize("at", [2, 3, 6])
def test_sigterm_is_obeyed_also_in_an_evaluation_which_is_made_up_for(
    straight: Path,
    tmp_path: Path,
    tiny_config: dict[str, Any],
    one_device: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """After step 2 there is none; those after steps 3 and 6, the last, are left before their second
    batch, a second time before their first, and then made from the start.
    """
    steps: list[int] = []
    calls: dict[int, list[int]] = {}  # batches encoded, of each time the run is started
    step, encode = LiveLine.step, Model.encode_batch

    def note(self: LiveLine, done: int) -> None:
        step(self, done)
        steps.append(done)
        if done == at == 2 and len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)

    def stop(self: Model, modality: str, inputs: Any) -> np.ndarray:
        calls[max(calls)].append(steps[-1])
        if (steps or [at])[-1] == at and at != 2 and len(calls) < 3:
            signal.raise_signal(signal.SIGTERM)
        return encode(self, modality, inputs)

    folder = tmp_path / "run"
    monkeypatch.setattr(LiveLine, "step", note)
    monkeypatch.setattr(Model, "encode_batch", stop)
    for attempt in range(1 if at == 2 else 2):
        calls[attempt] = []
        with pytest.raises(Interrupted, match=f"by SIGTERM at step {at} of 6") as raised:
            run(tiny_config, folder, one_device)
        assert raised.value.by is signal.SIGTERM
        assert workdir.newest_step(folder) == at
        assert [row["step"] for row in rows(folder)][-1] == (2 if at == 2 else at - 1)
        assert calls[attempt].count(at) == (0 if at == 2 else 2)  # both towers, one batch
    calls[2] = []
    assert run(tiny_config, folder, one_device) == rows(straight)
    if at == 6:  # and again, from the same checkpoint
        assert run(tiny_config, folder, one_device) == rows(straight)


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_used(
    straight: Path, tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    folder = shutil.copytree(straight, tmp_path / "run")
    for step in (4, 6):
        file = max((folder / "checkpoints" / str(step)).glob("state/**/d/*"), key=size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    told = Console(record=True, file=io.StringIO(), width=200)
    train("experiments/quickstart.py", copy.deepcopy(tiny_config), folder, told, one_device)
    said = told.export_text()
    for step in (4, 6):
        assert f"Checkpoint {step} is damaged (state/" in said
    assert "Going on from step 2 of 6." in said
    assert rows(folder) == rows(straight)
    assert_same_bits(params(folder, one_device), params(straight, one_device))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "2", "4", "4.damaged", "6", "6.damaged"]  # fmt: skip


def size(file: Path) -> int:
    return file.stat().st_size


def test_only_damaged_checkpoints_are_not_begun_anew(
    straight: Path, tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    folder = shutil.copytree(straight, tmp_path / "run")
    for step in (2, 4, 6):
        (folder / "checkpoints" / str(step) / "clock" / "metadata").write_text("{}")
    with pytest.raises(InputError, match="All checkpoints in .* are damaged"):
        run(tiny_config, folder, one_device)
    assert workdir.saved_steps(folder) == [2, 4, 6]
    assert rows(folder) == rows(straight)


@pytest.fixture
def poisoned(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], list[list[int]]]:
    """A config whose loss is NaN at step 5, by the record that comes first there, and the numbers
    of the records of each step.
    """
    tiny_config |= {"eval": {"splits": []}, "checkpoint": {"every": 2}, "steps": 8}
    monkeypatch.syspath_prepend(str(tmp_path))
    with jax.set_mesh(one_device):
        built = build(experiment.stages(tiny_config)[0], one_device)
        feed = Feed(built, 0, {})
        taken = [np.asarray(batch["index"]).tolist() for batch in itertools.islice(feed, 8)]
    assert [records[0] for records in taken].count(taken[4][0]) == 1
    (tmp_path / "own_poisoned.py").write_text(
        "import dataclasses\nimport jax.numpy as jnp\nfrom mmcl.objectives import supcon\n\n\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Objective(supcon.Objective):\n"
        "    poison: int = -1\n\n"
        "    def __call__(self, params, state, embeddings, batch, key):\n"
        "        result = super().__call__(params, state, embeddings, batch, key)\n"
        "        bad = jnp.where(batch['index'][0] == self.poison, jnp.nan, 1.0)\n"
        "        (name, term), = result.terms.items()\n"
        "        return result._replace(terms={name: term._replace(value_B=term.value_B * bad)})\n"
    )
    tiny_config["objective"] |= {"name": "own_poisoned", "poison": taken[4][0]}
    return tiny_config, taken


def test_a_loss_that_is_not_finite_stops_the_run(
    poisoned: tuple[dict[str, Any], list[list[int]]], tmp_path: Path, one_device: Mesh
) -> None:
    config, taken = poisoned
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="The loss of step 5, nan, or a gradient is not") as raised:
        run(config, folder, one_device)
    assert "\n" not in str(raised.value) and "config.guard.not_finite=skip" in str(raised.value)
    assert workdir.saved_steps(folder) == [2, 4] and rows(folder)[-1]["step"] == 4
    (row,) = bad_steps(folder)
    assert (row["step"], row["kind"], row["loss"], row["done"]) == (5, "not_finite", "nan", "stop")
    with jax.set_mesh(one_device):
        source = build(experiment.stages(config)[0], one_device).source
    assert row["ids"] == [source[i]["id"] for i in taken[4]]
    config["guard"] = {"not_finite": "skip"}  # the same command goes on
    assert rows(folder)[-1]["step"] == 4
    written = run(config, folder, one_device)
    assert [row["step"] for row in written] == list(range(1, 9))
    assert np.isfinite(written[-1]["train/loss"])


@pytest.mark.parametrize("action", ["skip", "rewind"])
def test_a_bad_step_is_left_out(
    poisoned: tuple[dict[str, Any], list[list[int]]],
    tmp_path: Path,
    one_device: Mesh,
    action: str,
) -> None:
    """Parameters are then those of a run that never made that step, also after a kill."""
    config, _ = poisoned
    config["guard"] = {"not_finite": action}
    folder, killed = tmp_path / "run", tmp_path / "killed"
    written = run(config, folder, one_device)
    losses = [row["train/loss"] for row in written]
    assert [np.isfinite(loss) for loss in losses] == [True] * 4 + [False] + [True] * 3
    assert [row.get("train/bad_steps", 0) for row in written] == [0] * 4 + [1] * 4
    (row,) = bad_steps(folder)
    assert (row["step"], row["done"]) == (5, action)
    shutil.copytree(folder, killed)
    for step in (6, 8):
        shutil.rmtree(killed / "checkpoints" / str(step), ignore_errors=True)
    assert json.dumps(run(config, killed, one_device)) == json.dumps(written)  # NaN is itself
    assert_same_bits(params(folder, one_device), params(killed, one_device))
    assert np.all([np.isfinite(leaf).all() for leaf in params(folder, one_device)])


def test_too_many_bad_steps_stop_the_run(
    poisoned: tuple[dict[str, Any], list[list[int]]], tmp_path: Path, one_device: Mesh
) -> None:
    config, _ = poisoned
    config["guard"] = {"not_finite": "skip", "limit": 1}
    config["schedule"] = {"name": "constant", "peak": float("nan")}  # from step 2 on all are bad
    with pytest.raises(InputError, match="The loss of step 3.* config.guard.limit=1"):
        run(config, tmp_path / "run", one_device)
    assert [row["done"] for row in bad_steps(tmp_path / "run")] == ["skip", "stop"]


def bad_steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "bad_steps.jsonl").read_text().splitlines()]


def test_the_best_checkpoint_survives_later_ones_and_a_resume(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluated at every step but saved at every fourth only; the metric is made up."""
    metric = "eval/unseen_artist/text_to_image/recall@10"
    values = iter([0.2, 0.6, 0.5, 0.1, 0.3, 0.4])

    def judge(self: Model, embedded: Embedded) -> dict[str, float]:
        return {metric: next(values)}

    step = LiveLine.step

    def press(self: LiveLine, at: int) -> None:
        step(self, at)
        if at == 4:
            signal.raise_signal(signal.SIGINT)

    tiny_config["eval"]["every"] = 1
    tiny_config["checkpoint"] = {"every": 4, "keep": 1, "best": metric}
    folder = tmp_path / "run"
    monkeypatch.setattr(Model, "judge", judge)
    monkeypatch.setattr(LiveLine, "step", press)
    with pytest.raises(Interrupted):
        run(tiny_config, folder, one_device)
    monkeypatch.setattr(LiveLine, "step", step)
    assert workdir.saved_steps(folder) == [2, 4]
    assert [row[metric] for row in run(tiny_config, folder, one_device)][4:] == [0.3, 0.4]
    assert workdir.saved_steps(folder) == [2, 6]
    assert load(folder, one_device).step == 6
    assert load(folder, one_device, "best").step == load(folder, one_device, 2).step == 2
    with pytest.raises(InputError, match=r"no checkpoint of step 4; it has \[2, 6\]"):
        load(folder, one_device, 4)


def test_a_best_metric_that_nothing_writes_stops_the_run_where_it_can_go_on(
    straight: Path, tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    folder = tmp_path / "run"
    for wrong, said in (
        ("eval/unseen/text_to_image/recall@10", "metric of one of eval/unseen_artist/"),
        ("eval/unseen_artist/text_to_image/recal@10", "Did you mean '.*/recall@10'"),
    ):
        tiny_config["checkpoint"]["best"] = wrong
        with pytest.raises(InputError, match=said):
            run(tiny_config, folder, one_device)
    assert workdir.saved_steps(folder) == [2, 3]
    tiny_config["checkpoint"]["best"] = "-eval/unseen_artist/text_to_image/median_rank"
    assert run(tiny_config, folder, one_device) == rows(straight)


def test_a_finished_run_is_not_trained_again(
    straight: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    before = (straight / "metrics.jsonl").read_text()
    splits = train("experiments/quickstart.py", tiny_config, straight, QUIET, one_device).splits
    assert (straight / "metrics.jsonl").read_text() == before
    assert [split.split for split in splits] == ["unseen_artist"]


@pytest.mark.parametrize(
    "axes", [Axes(), pytest.param(Axes(slice=2, fsdp=2, tensor=2), marks=pytest.mark.long)]
)
def test_eight_devices_equal_one(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh, axes: Axes
) -> None:
    """Plain gradient steps: Adam would blow rounding up where a gradient is nearly zero."""
    tiny_config |= {"eval": {"splits": []}, "ema": None, "checkpoint": {}, "steps": 4}
    tiny_config["optimizer"] = {"name": "sgd", "momentum": 0.0, "clip_norm": 1.0}
    tiny_config["schedule"] = {"name": "constant", "peak": 0.5}
    mesh = make_mesh(axes)
    eight = run(tiny_config, tmp_path / "eight", mesh)
    one = run(tiny_config, tmp_path / "one", one_device)
    for a, b in zip(eight, one, strict=True):
        for key in ("train/loss", "train/grad_norm/image", "train/grad_norm/text"):
            assert abs(a[key] - b[key]) <= 2e-5 * abs(b[key]), (a["step"], key)
    for x, y in zip(params(tmp_path / "eight", mesh), params(tmp_path / "one", one_device)):
        assert np.abs(x - y).max() <= 2e-5 * np.abs(y).max()


def test_stages_hand_on_the_towers(
    tmp_path: Path, tiny_config: dict[str, Any], one_device: Mesh
) -> None:
    """Stage 2 begins with the parameters of stage 1 and its own objective, data order and rate."""
    first = {"steps": 3}
    second = {
        "steps": 2,
        "objective": {"name": "sigmoid", "positives": "concept"},
        "optimizer": {"name": "sgd", "momentum": 0.0, "freeze": ["^text/"]},
        "schedule": {"name": "constant", "peak": 1e-3},
        "ema": None,
    }
    tiny_config["schedule"] = {"name": "constant", "peak": 1e-3}
    staged = run(tiny_config | {"stages": [first, second]}, tmp_path / "staged", one_device)
    alone = run(tiny_config | {"steps": 3}, tmp_path / "alone", one_device)
    losses = [row["train/loss"] for row in staged]
    assert losses[:3] == [row["train/loss"] for row in alone]
    assert [row["step"] for row in staged] == [1, 2, 3, 4, 5]
    assert "train/logit_bias" in staged[3] and "train/logit_bias" not in staged[2]
    assert staged[3]["train/grad_norm/text"] == 0.0
    assert staged[4].get("final") and not staged[2].get("final")


def test_stages_resume_in_the_second(
    tmp_path: Path,
    tiny_config: dict[str, Any],
    one_device: Mesh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_config["stages"] = [{"steps": 2}, {"steps": 4, "optimizer": {"name": "lion"}}]
    tiny_config["schedule"]["warmup"] = 1
    tiny_config["eval"] = {"splits": []}
    straight = run(tiny_config, tmp_path / "straight", one_device)
    step = LiveLine.step
    for killed_at in (2, 4):  # at the border between the stages, and inside the second

        def kill(self: LiveLine, at: int, killed_at: int = killed_at) -> None:
            step(self, at)
            if at == killed_at + 1:
                raise InterruptedError

        folder = tmp_path / f"killed-{killed_at}"
        monkeypatch.setattr(LiveLine, "step", kill)
        with pytest.raises(InterruptedError):
            run(tiny_config, folder, one_device)
        await_saved(folder, *range(2, killed_at + 1, 2))
        monkeypatch.setattr(LiveLine, "step", step)
        assert run(tiny_config, folder, one_device) == straight


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.long)])
def test_what_an_objective_remembers_survives_a_kill(
    tmp_path: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """A queue of two batches, killed when the third is in it."""
    mesh = data_mesh(jax.devices()[:devices])
    tiny_config |= {"steps": 5, "eval": {"splits": []}, "ema": None}
    tiny_config["objective"] = {"name": "queue", "length": 32, "positives": "concept"}
    straight = run(tiny_config, tmp_path / "straight", mesh)
    filled = [row["train/queue_filled"] for row in straight]
    assert filled == [0.0, 0.5, 1.0, 1.0, 1.0]
    step = LiveLine.step

    def kill(self: LiveLine, at: int) -> None:
        if at == 4:
            raise InterruptedError
        step(self, at)

    monkeypatch.setattr(LiveLine, "step", kill)
    with pytest.raises(InterruptedError):
        run(tiny_config, tmp_path / "killed", mesh)
    await_saved(tmp_path / "killed", 2)
    monkeypatch.setattr(LiveLine, "step", step)
    assert run(tiny_config, tmp_path / "killed", mesh) == straight
    assert_same_bits(params(tmp_path / "killed", mesh), params(tmp_path / "straight", mesh))


def test_a_step_on_a_mesh_is_compiled_once_and_stays_where_it_is(
    tiny_config: dict[str, Any],
) -> None:
    """Parameters, their moments and what an objective remembers lie alike before and after."""
    tiny_config["objective"] = {"name": "queue", "length": 32, "positives": "concept"}
    mesh = make_mesh(Axes(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh), compilations() as compiled:
        built = build(experiment.stages(tiny_config)[0], mesh)
        state, counts = built.init(), []
        for batch in itertools.islice(Feed(built, 0, {}), 3):
            before = jax.tree.map(lambda x: (x.sharding, x.shape), state)
            state, _ = built.train_step(state, batch)
            assert jax.tree.map(lambda x: (x.sharding, x.shape), state) == before
            counts.append(len(compiled))
    assert 0 < counts[0] == counts[1] == counts[2]
    up = state.params["image"]["encoder"]["blocks_0"]["up"]["kernel"]
    assert up.shape == (16, 64) and up.addressable_shards[0].data.shape == (8, 32)
    z = state.objective["queue"]["image"]["z"]
    assert z.shape == (32, 8) and z.addressable_shards[0].data.shape == (8, 8)


def test_a_batch_that_does_not_divide_is_refused(
    tmp_path: Path, tiny_config: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="multiple of 8"):
        run(tiny_config | {"batch_size": 12}, tmp_path / "run", data_mesh())
    assert not (tmp_path / "run").exists()
