"""`mmcl bench step`: the very step of `train`, its parts, and what is printed of them."""

import contextlib
import copy
import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner, Result
from jax.sharding import Mesh

from mmcl import experiment
from mmcl.bench import open_clip, open_clip_model, step, step_against, step_side, vit_s_16
from mmcl.bench.open_clip_model import Sizes
from mmcl.bench.peak import Peak
from mmcl.bench.row import Failed
from mmcl.bench.step import Loop, Row, compilations
from mmcl.bench.step_against import Beside
from mmcl.bench.step_parts import parts
from mmcl.bench.step_side import Speed, StepSide, Task
from mmcl.built_stage import build
from mmcl.cli import cli
from mmcl.feed import Feed
from mmcl.mesh import Axes, data_mesh, make_mesh

ROW = Row(
    experiment="mine.py",
    devices=1,
    device_kind="cpu",
    batch_size=128,
    steps=20,
    steps_per_s=4.0,
    examples_per_s=512.0,
    step_s=0.25,
    alone_s=0.2,
    flops=2e9,
    peak_flops_per_s=100e9,
    mfu=0.08,
    towers_mfu=0.125,
    loss_mfu=0.5,
    data_share=0.05,
    towers_share=0.6,
    loss_share=0.1,
    optimizer_share=0.15,
    other_share=0.1,
    outside_xla_share=0.06,
    recompiles=0,
    dominated_by="towers",
)

BAG = "--config.towers.text={'name': 'bag', 'buckets': 64}"


def bench(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "step", *words], prog_name="mmcl")


def refused(*words: str) -> str:
    result = bench(*words)
    assert result.exit_code == 2 and not result.stdout, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("mmcl: ")


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcl.bench.peak.SIDE", {"cpu": 128})


@pytest.fixture
def small_config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Made-up records; nothing is downloaded or drawn."""
    tiny_config |= {
        "source": {"name": "synthetic", "pictures": {"image": 16}, "texts": {"text": 3}},
        "transforms": {
            "image": [{"name": "image.resize", "size": 16}],
            "text": [{"name": "tokens.utf8", "vocab_size": 4096, "length": 8}],
        },
        "objective": {"name": "infonce"},
        "eval": {"splits": []},
        "steps": 3,  # fewer than are measured
    }
    return tiny_config


# What is measured


@pytest.mark.long
def test_a_real_run(
    tmp_path: Path, experiment_file: Callable[..., Path], small_config: dict[str, Any]
) -> None:
    """More steps than the experiment has; shares add up; nothing is compiled or moved in secret,
    for `Loop` forbids transfers as `train` does."""
    file = str(experiment_file(small_config))
    result = bench(file, "--steps", "5", "--json", "--trace", str(tmp_path / "trace"))
    assert result.exit_code == 0, result.output
    row = Row(**json.loads(result.stdout))
    assert row.experiment == file and (row.devices, row.batch_size, row.steps) == (8, 16, 5)
    assert row.steps_per_s == pytest.approx(1 / row.step_s)
    assert row.examples_per_s == pytest.approx(16 / row.step_s)
    assert row.mfu == pytest.approx(row.flops / row.step_s / row.peak_flops_per_s)
    shares = (getattr(row, f"{part}_share") for part in step.PARTS)
    assert sum(shares) == pytest.approx(1)
    assert row.towers_share > 0 and row.loss_share > 0 and row.optimizer_share > 0
    assert 0 <= row.data_share < 1 and 0 <= row.outside_xla_share < 1  # waiting may overlap work
    assert row.recompiles == 0
    (trace,) = (tmp_path / "trace").glob("plugins/profile/*/*.trace.json.gz")
    assert result.stderr.startswith(f"mmcl: Trace: {trace}; open it at")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "step" for event in events) == step.TRACED


@pytest.mark.parametrize(
    ("changes", "axes"),
    [
        pytest.param(
            {"optimizer": {"name": "sgd"}},
            Axes(data=2, fsdp=2, tensor=2),
            marks=pytest.mark.long,
        ),
        (
            {
                "objective": {"name": "filip"},
                "optimizer": {"name": "sgd", "freeze": ["^image/patches", "log_scale"]},
                "ema": None,
            },
            Axes(data=1),
        ),
        pytest.param(
            {"optimizer": {"name": "sgd"}, "micro_batches": 2},
            Axes(data=2),
            marks=pytest.mark.long,
        ),
        pytest.param(
            {
                "objective": {"name": "filip"},
                "optimizer": {"name": "sgd"},
                "micro_batches": 2,
            },
            Axes(data=1),
            marks=pytest.mark.long,
        ),
    ],
    ids=["8 devices", "tokens, some frozen", "micro-batches", "micro-batches of tokens"],
)
def test_the_parts_make_the_step(
    small_config: dict[str, Any], changes: dict[str, Any], axes: Axes
) -> None:
    """One after another: the same parameters, momentum and average as the one program's; and as
    many operations, but for those that only a part by itself needs."""
    config = copy.deepcopy(small_config) | changes
    mesh = make_mesh(axes, jax.devices()[: axes.data * axes.fsdp * axes.tensor])
    with jax.set_mesh(mesh):
        built = build(experiment.stages(config)[0], mesh)
        batches = iter(Feed(built, 0, {}))
        state, _ = built.train_step(built.init(), next(batches))  # past a rate of 0
        batch = next(batches)
        made = parts(built, state, batch)
        (value, _), _ = made.loss.run(state)
        places = jax.tree.map(lambda x: x.sharding, state)
        got = made.optimizer.run(jax.tree.map(jnp.copy, state))
        whole = step.flops(built, state, batch)
        want, metrics = built.train_step(state, batch)
    assert made.towers.flops + made.loss.flops == pytest.approx(whole, rel=0.02)
    assert made.towers.flops > made.loss.flops > 0 == made.optimizer.flops
    assert float(value) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert jax.tree.map(lambda x: x.sharding, got) == places
    for part in ("step", "params", "optimizer", "ema"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(np.asarray(a), b, rtol=1e-4, atol=2e-6),
            getattr(got, part),
            jax.device_get(getattr(want, part)),
        )


def test_what_is_compiled_or_moved_in_secret_is_found(
    small_config: dict[str, Any], one_device: Mesh
) -> None:
    built = build(experiment.stages(small_config)[0], one_device)

    def compiling(state: Any, batch: Any) -> Any:
        state, metrics = built.train_step(state, batch)
        jax.jit(lambda x: x + 1)(metrics["loss"])  # another function each time
        return state, metrics

    def moving(state: Any, batch: Any) -> Any:
        return built.train_step(state, jax.tree.map(np.asarray, batch))

    def loop(train_step: Any) -> Any:
        changed = dataclasses.replace(built, train_step=train_step)
        return contextlib.closing(Loop(changed))

    with jax.set_mesh(one_device):
        with loop(built.train_step) as plain:
            lap = plain.run(2)
            assert plain.compiled > 0
            assert 0 < lap.data <= lap.idle < lap.wall
        with loop(compiling) as found:
            found.run(3)
            assert found.compiled >= 3
        with loop(moving) as found, pytest.raises(Exception, match="Disallowed"):
            found.run(1)


def test_compilations_are_counted_inside_only() -> None:
    double = jax.jit(lambda x: 2 * x)
    x = jnp.ones(3)
    with compilations() as first:
        double(x)
    with compilations() as second:
        double(x)
    jax.jit(lambda x: 3 * x)(x)
    assert len(first) == 1 and not second and first[0] > 0


def test_the_peak_is_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """2·128³ operations a product, two of them, on each of two devices, in a second."""
    clock = iter([0.0, 2.0, 2.0, 3.0])
    peak = Peak(data_mesh(jax.devices()[:2]), jnp.dtype("bfloat16"))
    monkeypatch.setattr("mmcl.bench.peak.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert peak.flops_per_s(2) == 2 * 2 * 2 * 128**3


# What is printed


def test_the_table_and_what_dominates(
    experiment_file: Callable[..., Path],
    small_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "measured", lambda *_: ROW)
    result = bench(str(experiment_file(small_config)))
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "batch 128 on 1 × cpu: 4 steps/s, 512 examples/s, 2 GFLOP a step; "
        "large products: 100 GFLOP/s"
    )
    assert [line.split() for line in lines[1:8]] == [
        ["a", "step", "ms", "share", "of", "peak"],
        ["data", "12.5", "5.0%"],
        ["towers", "150.0", "60.0%", "12%"],
        ["loss", "25.0", "10.0%", "50%"],
        ["optimiser", "37.5", "15.0%"],
        ["other", "25.0", "10.0%"],
        ["all", "250.0", "8%"],
    ]
    assert lines[8:] == [
        "Towers take most of a step, 60%, at 12% of the rate of large products.",
        "Outside XLA: 6.0%. Alone the compiled step takes 200.0 ms: loading takes cores from it.",
    ]


def test_what_should_not_be_is_said() -> None:
    slow = ROW._replace(
        data_share=0.7, dominated_by="data", recompiles=2, device_kind="NVIDIA H100"
    )
    assert step.summary(slow) == [
        "Waiting for data takes most of a step, 70%. Raise config.threads or config.workers.",
        "Outside XLA: 6.0%. Alone the compiled step takes 200.0 ms.",
        "Compiled again 2 times after the first step.",
    ]


# Beside open_clip


class Fake:
    """Both sides; ours takes 1 s, then 2 s, theirs always 3 s."""

    log: list[str] = []
    tasks: list[Task] = []

    def __init__(self, name: str, task: Task):
        self.name, self.ran = name, 0
        self.tasks.append(task)

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *error: object) -> None: ...

    def run(self, steps: int) -> Speed:
        self.log.append(f"{self.name} {steps}")
        self.ran += steps
        if self.name == "open_clip":
            return Speed(3.0, 6.0, 8e12)
        return Speed(float(self.ran), 2.0 * self.ran, 9e12)


def test_sides_take_turns(
    experiment_file: Callable[..., Path],
    small_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither is begun before the other is ready; ratios are medians over pairs."""
    monkeypatch.setattr(step_against, "StepSide", Fake)
    monkeypatch.setattr(open_clip, "missing", lambda: [])
    Fake.log.clear()
    file = str(experiment_file(small_config))
    result = bench(file, "--against", "open_clip", "--steps", "2", "--json")
    assert result.exit_code == 0, result.output
    assert Fake.log == ["ours 0", "open_clip 0", *["ours 1", "open_clip 1"] * 2]
    row = Beside(**json.loads(result.stdout))
    assert row.experiment == file and row.turns == 2 and row.batch_size == 16
    assert (row.step_s, row.cpu_s, row.flops) == (1.5, 3.0, 9e12)
    assert (row.baseline_step_s, row.baseline_cpu_s, row.baseline_flops) == (3.0, 6.0, 8e12)
    assert row.times == row.cpu_times == (3 / 1 + 3 / 2) / 2
    task = Fake.tasks[-1]
    assert task.file == file and task.threads == row.threads >= 1
    assert Sizes(**task.sizes) == Sizes(
        16, 8, [16, 16], 8, [16, 1, 2], 8, 4096, [16, 1, 2], "infonce",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1}, False,
    )  # fmt: skip
    told = bench(file, "--against", "open_clip", "--steps", "2").stdout.splitlines()
    assert told[2].split() == ["mmcl", "1.5", "3", "10.7", "9", "6,000"]
    assert told[3].split() == ["open_clip", "3", "6", "5.33", "8", "2,667"]
    assert told[4] == "2.25 × open_clip's steps a second; 1 step takes 0.44 × its CPU seconds."


def test_without_an_experiment_it_is_vit_s_16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of open_clip's own config of that name; keys can be changed."""
    monkeypatch.setattr(step_against, "StepSide", Fake)
    monkeypatch.setattr(open_clip, "missing", lambda: [])
    words = ["--against", "open_clip", "--steps", "1", "--config.batch_size=256"]
    assert bench(*words).stdout.startswith("ViT-S/16, batch 256, float32, ")
    sizes = Sizes(**Fake.tasks[-1].sizes)
    assert sizes[:8] == (256, 384, [224, 224], 16, [384, 12, 6], 77, 49408, [384, 12, 6])
    assert Fake.tasks[-1].file is None and not sizes.checkpointed
    words += [f"--config.towers.{tower}.remat=full" for tower in ("image", "text")]
    assert bench(*words).exit_code == 0 and Sizes(**Fake.tasks[-1].sizes).checkpointed
    assert vit_s_16.config()["batch_size"] == 64


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "`mmcl bench step` takes one FILE[:ARG]; there is none."),
        (["FILE", "--step", "3"], "There is no option '--step'. Did you mean '--steps'?"),
        (["FILE", "--steps", "0"], "Invalid value for '--steps': 0 is not in the range x>=1."),
        (["FILE", "--against", "clip"], "Invalid value for '--against': 'clip' is not "),
        (
            ["FILE", "--against", "open_clip", "--trace", "there"],
            "--trace: is of one step by itself; leave --against out.",
        ),
        (
            ["FILE", "--against", "open_clip", BAG],
            "--against: open_clip is given image: vit and text: text; here is image: vit,",
        ),
        (
            ["FILE", "--against", "open_clip", "--config.objective.name=decoupled"],
            "--against: open_clip has none of this objective, but clip,",
        ),
        (
            ["FILE", "--against", "open_clip", "--config.precision=bfloat16"],
            "--against: both sides train by adamw in float32; set it so.",
        ),
    ],
)
def test_a_mistake_is_one_line(
    experiment_file: Callable[..., Path],
    small_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(open_clip, "missing", lambda: [])
    file = str(experiment_file(small_config))
    assert refused(*(file if word == "FILE" else word for word in words)).startswith(message)


def test_without_open_clip_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "missing", lambda: ["torch", "open_clip"])
    assert refused("--against", "open_clip") == (
        "--against: no torch and no open_clip to compare with; "
        "pip install torch && pip install --no-deps open_clip_torch"
    )


def task(config: dict[str, Any]) -> Task:
    built = build(experiment.stages(config)[0], data_mesh(jax.devices()[:1]))
    sizes = open_clip_model.sizes(built.stage.settings, built.example)
    return Task(config, None, sizes._asdict(), 1)


def test_our_side_trains(small_config: dict[str, Any]) -> None:
    run, flops = step_side.ours(task(small_config))
    run(2)
    assert flops > 0


@pytest.mark.skipif(bool(open_clip.missing()), reason="open_clip is not installed")
@pytest.mark.parametrize("objective", ["infonce", "sigmoid"])
def test_their_model_has_blocks_of_the_same_sizes_and_trains(
    small_config: dict[str, Any], objective: str
) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    small_config["objective"] = {"name": objective}
    sizes = Sizes(**task(small_config).sizes)
    params = build(experiment.stages(small_config)[0], data_mesh(jax.devices()[:1])).init().params
    theirs = open_clip_model.built(sizes)
    for ours, blocks in (
        (params["image"], theirs.visual.transformer.resblocks),
        (params["text"], theirs.transformer.resblocks),
    ):
        mine = ours["encoder"]["blocks_0"]
        count = sum(x.size for x in jax.tree.leaves(mine))
        assert [sum(p.numel() for p in block.parameters()) for block in blocks] == [count]
    assert params["text"]["embed"]["embedding"].shape == tuple(theirs.token_embedding.weight.shape)
    made = open_clip_model.trained(sizes, 1)
    made.step()
    again = open_clip_model.trained(sizes._replace(checkpointed=True), 1)
    assert again.flops > 1.1 * made.flops > 0  # one more forward pass
    torch.set_num_threads(threads)


def test_a_side_that_fails_says_why_in_a_line(small_config: dict[str, Any]) -> None:
    wrong = task(small_config)
    wrong.config["batch_size"] = 0
    with StepSide("ours", wrong) as far, pytest.raises(Failed, match="config.batch_size: 0 should"):
        far.run(0)


@pytest.mark.long
@pytest.mark.skipif(bool(open_clip.missing()), reason="open_clip is not installed")
def test_both_sides_for_real(
    experiment_file: Callable[..., Path], small_config: dict[str, Any]
) -> None:
    file = str(experiment_file(small_config))
    result = bench(file, "--against", "open_clip", "--steps", "2", "--json")
    assert result.exit_code == 0, result.output
    row = Beside(**json.loads(result.stdout))
    assert row.times > 0 and row.cpu_times > 0 and row.flops > 0 and row.baseline_flops > 0
