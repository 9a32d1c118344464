"""`mmcl bench loss`: what it prints, which losses it knows, and that it measures what it says."""

import dataclasses
import json
import math
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mmcl.bench import cases, open_clip, row
from mmcl.bench import loss as losses
from mmcl.bench.row import Failed, Row
from mmcl.cli import cli
from mmcl.objectives.term import Result as Terms
from mmcl.objectives.term import Term
from pallas_kernels.pair_reduce import Reduce, pair_reduce
from pallas_kernels.pair_reduce.flops import products

KEYS = [
    "case",
    "impl",
    "batch",
    "dim",
    "dtype",
    "cpu_s",
    "wall_s",
    "matmul_cpu_s",
    "peak_mib",
    "temp_mib",
    "flops_over_2BBD",
]
B, D = 64, 8
LOCKED = {"cwcl": {"image"}}  # what gets no gradient


def bench(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "loss", *words], prog_name="mmcl")


def refused(*words: str) -> str:
    result = bench(*words)
    assert result.exit_code == 2 and not result.stdout, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("mmcl: ")


# The command


def test_json_of_a_real_process_and_of_one_that_fails() -> None:
    """The engine's rows are whole; where a process fails, the row is empty and one line says why.

    What is of the machine is checked for its kind only; what is counted, exactly.
    """
    result = bench("--batch", "3000", "--dim", "64", "--cases", "clip", "--impl", "xla", "--json")
    assert result.stderr == "" and result.exit_code == 0
    (got,) = json.loads(result.stdout)
    assert list(got) == KEYS
    assert [got[key] for key in KEYS[:4]] == ["clip", "xla", 3000, 64]
    case = cases.build("clip", 3000, 64)
    assert got["flops_over_2BBD"] == products(case.function, *case.args, unit=2 * 3000 * 3000 * 64)
    assert got["cpu_s"] > 0 and got["wall_s"] > 0 and got["matmul_cpu_s"] > 0
    assert got["temp_mib"] > 0
    if sys.platform == "linux":
        assert got["temp_mib"] <= got["peak_mib"] < got["temp_mib"] + 12

    words = ["--batch", str(B), "--dim", str(1 << 40), "--cases", "clip", "--impl", "xla"]
    result = bench(*words, "--json")
    (got,) = json.loads(result.stdout)
    assert list(got) == KEYS and all(got[key] is None for key in KEYS[5:])
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmcl: clip xla: ")


def test_the_table_and_how_we_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios of the numbers above them; a row that failed has none."""
    asked = []

    def measured(case: str, impl: str, batch: int, dim: int, dtype: str, repeats: int) -> Row:
        asked.append((case, impl, batch, dim, dtype, repeats))
        if (case, impl) == ("siglip", "xla"):
            raise Failed("no room.")
        if impl == "xla":
            return Row(case, impl, batch, dim, dtype, 15.0, 8.0, 3.0, 104.0, 34.0, 4.0)
        return Row(case, impl, batch, dim, dtype, 30.0, 16.0, 3.0, 4160.0, None, 6.0)

    monkeypatch.setattr(losses, "measured", measured)
    monkeypatch.setattr(open_clip, "missing", lambda: [])
    result = bench("--spec", "clip-vit-l-14", "--cases", "clip,siglip", "--repeats", "5")
    assert result.exit_code == 0 and result.stderr == "mmcl: siglip xla: no room.\n"
    assert asked[0] == ("clip", "xla", 32768, 768, "float32", 5) and len(asked) == 4
    lines = result.stdout.splitlines()
    assert lines[0] == "batch 32,768 × 768, float32, forward and backward"
    assert lines[2].split() == ["clip", "xla", "15", "8", "104", "34", "4.00", "1.25"]
    assert lines[3].split() == ["clip", "open_clip", "30", "16", "4,160", "6.00", "1.67"]
    assert lines[4].split() == ["siglip", "xla"]
    assert lines[6:] == ["clip: xla / open_clip = 0.50 × CPU seconds, 0.025 × peak"]
    asked.clear()
    assert bench("--spec", "clip-vit-l-14", "--batch", "8", "--cases", "clip").exit_code == 0
    assert asked[0] == ("clip", "xla", 8, 768, "float32", 3)
    asked.clear()
    assert bench("--impl", "xla").exit_code == 0
    assert asked[:2] == [(name, "xla", 4096, 512, "float32", 3) for name in ("clip", "siglip")]
    assert [case for case, *_ in asked] == cases.default()


def test_a_bound_of_a_device_that_is_not_here_is_its_data_sheet() -> None:
    """Four products of 2·B·B·D at 197e12 operations a second; B × D, twice in, twice out."""
    words = ["--batch", "65536", "--dim", "512", "--dtype", "bfloat16", "--cases", "clip"]
    result = bench(*words, "--roofline", "TPU v5 lite", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["flops_over_2BBD"] == pytest.approx(4, rel=1e-3)
    assert row["products_s"] == pytest.approx(4 * 2 * 65536**2 * 512 / 197e12, rel=1e-3)
    least = 4 * 65536 * 512 * 2 / 0.82e12
    assert least < row["memory_s"] < 1.01 * least
    assert row["roofline_s"] == row["products_s"]
    told = bench(*words, "--roofline", "TPU v5 lite").stdout.splitlines()
    assert told[1].startswith("An estimate from its data sheet, not a measurement")
    wrong = bench(*words, "--roofline", "TPU v5lite")
    assert wrong.exit_code == 2 and "Did you mean 'TPU v5 lite'?" in wrong.stderr


def test_without_open_clip_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(open_clip, "missing", lambda: ["torch", "open_clip"])
    assert losses.plan(["clip"], [], notes.append) == [("clip", "xla")]
    assert notes == [
        "open_clip is left out: no torch and no open_clip; "
        "pip install torch && pip install --no-deps open_clip_torch"
    ]
    monkeypatch.setattr(open_clip, "missing", lambda: [])
    assert losses.plan(["clip"], [], notes.append) == [("clip", "xla"), ("clip", "open_clip")]
    assert len(notes) == 1


def test_each_loss_is_listed_once() -> None:
    listed = cases.default()
    assert listed[:2] == ["clip", "siglip"]
    assert not {"infonce", "sigmoid"} & set(listed)
    assert {"clip", "siglip", "infonce", "sigmoid"} <= set(cases.offered())


@pytest.mark.parametrize(
    "words, message",
    [
        (["--cases", "clap"], "--cases: there is no 'clap'. Did you mean 'clip'?"),
        (["--cases", "clip", "--cases", "sigmiod"], "--cases: there is no 'sigmiod'. Did you mean"),
        (["--impl", "xla,refrence"], "--impl: there is no 'refrence'. Did you mean 'reference'?"),
        (["--spec", "clip-vit-b32"], "--spec: there is no 'clip-vit-b32'. Did you mean 'clip-v"),
        (["--batch", "0"], "Invalid value for '--batch': 0 is not in the range x>=1."),
        (["--dim", "0"], "Invalid value for '--dim': 0 is not in the range x>=1."),
        (["--repeats", "0"], "Invalid value for '--repeats': 0 is not in the range x>=1."),
        (["--bach", "3"], "No such option '--bach'. Did you mean '--batch'?"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    assert refused(*words).startswith(message)


def test_a_loss_that_open_clip_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "offered", lambda: ["other"])
    assert refused("--cases", "other", "--impl", "open_clip").startswith("--impl: open_clip has no")


# One row


def test_a_dense_loss_that_does_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row, "_free_bytes", lambda: 1 << 30)
    monkeypatch.setattr(row.subprocess, "run", lambda *_, **__: pytest.fail("it was begun"))
    with pytest.raises(Failed, match=r"may need 6.0 GiB, and 1.0 are free\."):
        row.measured("clip", "open_clip", 16384, 512, "float32", 1)


@pytest.mark.parametrize(
    "code, stderr, why",
    [
        (-9, "", "its process was ended by SIGKILL; perhaps memory ran out."),
        (1, "Traceback\n  more\nRuntimeError: no room\n", "RuntimeError: no room"),
        (1, "", "its process ended with code 1."),
    ],
)
def test_why_there_is_no_row(
    monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, why: str
) -> None:
    done = row.subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(row.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(Failed) as failed:
        row.measured("clip", "xla", B, D, "float32", 1)
    assert str(failed.value) == why


# The losses


@pytest.mark.parametrize("name", cases.offered())
def test_every_objective_runs_on_the_synthetic_batch(name: str) -> None:
    """Finite values, and gradients to what it reads and to its own parameters."""
    case = cases.build(name, B, D)
    value, (vectors, params) = jax.jit(case.function)(*case.args)
    assert np.isfinite(value) and vectors
    leaves = jax.tree.leaves((vectors, params))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    moved = {modality for (modality, _), leaf in vectors.items() if np.any(leaf != 0)}
    assert moved == {modality for modality, _ in vectors} - LOCKED.get(name, set())
    assert products(case.function, *case.args, unit=2 * B * B * D) > 0


@pytest.mark.parametrize(
    "name, count",
    [
        ("clip", 4),
        ("siglip", 3),
        ("supcon", 4),
        ("soft_targets", 4 + 2),
        ("decoupled", 4),
        ("queue", 4 + 3 + 3),
        ("cwcl", 3 + 2),
        ("alignment_uniformity", 4 + 3 + 3),
        ("hardness", 4),
        ("macl", 4),
        ("matryoshka", 4),
        ("one_to_k", 4 * cases.VIEWS),
        ("dexml", 8 * cases.VIEWS),
        ("modx", 4 + 2),
    ],
)
def test_products_are_as_many_as_its_docstring_says(name: str, count: int) -> None:
    case = cases.shapes(name, B, D)
    assert products(case.function, *case.args, unit=2 * B * B * D) == count


@pytest.mark.parametrize("name", ["clip", pytest.param("siglip", marks=pytest.mark.long)])
def test_implementations_agree_and_the_one_named_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(function: Any, args: Any, **options: Any) -> Any:
        return jax.jit(function)(*args)

    dense = cases.run(name, "reference", B, D, 1)
    assert dense.products == 3.0  # kept from the forward pass, not made again
    monkeypatch.setattr(cases, "measure", value)
    ours, theirs = (cases.run(name, impl, B, D, 1) for impl in ("xla", "reference"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


class Tokens:
    """An objective that reads tokens, labels, a teacher and a state, and asks for the width."""

    @dataclasses.dataclass(frozen=True)
    class Objective:
        embed_dim: int
        positives: str = "group"

        def init(self, key: jax.Array) -> dict[str, Any]:
            return {"scale": jnp.float32(2.0)}

        def init_state(self, key: jax.Array) -> jax.Array:
            return jnp.ones(self.embed_dim)

        def __call__(
            self, params: Any, state: Any, embeddings: Any, batch: Any, key: jax.Array
        ) -> Terms:
            image, text = embeddings["image"], embeddings["text"]
            rows = {"t": image.tokens.mean(1), "label": batch["group"]}
            cols = {"t": text.tokens.mean(1), "label": batch["group"]}

            def tile(row: Any, col: Any, params: Any, at: Any) -> dict[str, jax.Array]:
                same = row["label"][:, None] == col["label"]
                return {"s": jnp.where(same, params * (row["t"] @ col["t"].T), 0.0)}

            sums = pair_reduce(tile, rows, cols, {"s": Reduce("sum", "s", "row")}, params["scale"])
            teacher = batch["teacher"]["image"] @ state
            weight = (image.mask.any(1) & batch["present"]["text"]).astype(jnp.float32)
            return Terms({"tokens": Term(sums["s"] + teacher, weight)}, state, {})


def test_what_is_not_read_is_not_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mmcl.objectives.own_tokens")
    module.Objective = Tokens.Objective  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    case = cases.build("own_tokens", B, D)
    _, (vectors, params) = case.function(*case.args)
    assert set(vectors) == {("image", "tokens"), ("text", "tokens")}
    assert vectors["text", "tokens"].shape == (B, cases.TOKENS, D)
    assert set(params) == {"scale"} and params["scale"] != 0
    assert case.unit[0].shape == case.unit[1].shape == (B, D)
    pooled = cases.build("clip", B, D)
    assert set(pooled.args[0]) == {("image", "z"), ("text", "z")}


def test_a_loss_without_the_engine_has_no_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.build("clip", B, D)
    monkeypatch.setattr(cases, "build", lambda *_: case._replace(function=lambda *_: 0.0))
    with pytest.raises(cases.InputError, match="does not call the pair engine"):
        cases.run("clip", "xla", B, D, 1)


@pytest.mark.parametrize("impl, device", [("pallas_tpu", "TPU"), ("pallas_gpu", "GPU")])
def test_a_kernel_asks_for_its_device(impl: Any, device: str) -> None:
    with pytest.raises(cases.InputError, match=f"needs a {device}, and there is none"):
        cases.run("clip", impl, B, D, 1)


# open_clip, where it is installed


@pytest.mark.skipif(bool(open_clip.missing()), reason="open_clip is not installed")
@pytest.mark.parametrize("name, count", [("clip", 6.0), ("siglip", 3.0)])
def test_open_clip_has_the_same_value(name: str, count: float) -> None:
    torch = pytest.importorskip("torch")
    case = cases.build(name, B, D)
    value, (vectors, params) = case.function(*case.args)
    image, text = (
        torch.tensor(np.asarray(case.args[0][modality, "z"]), requires_grad=True)
        for modality in ("image", "text")
    )
    first = [math.log(cases.SCALE), cases.BIAS][: len(params)]
    own = [torch.tensor(x, requires_grad=True) for x in first]
    theirs = open_clip.loss(name)(image, text, *own)
    theirs.backward()
    assert theirs.item() == pytest.approx(float(value), rel=1e-5)
    assert own[0].grad.item() == pytest.approx(float(params["log_scale"]), rel=1e-4)
    cost = open_clip.run(name, B, D, 1)
    assert cost.products == count
    assert cost.temp_mib is None and cost.cpu_s is not None and cost.cpu_s > 0
