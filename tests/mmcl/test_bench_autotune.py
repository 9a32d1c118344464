"""`bench loss --autotune`: what it prints, what it keeps, and that a training would find it."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
from click.testing import CliRunner, Result

import pallas_kernels.pair_reduce.autotune as engine
from mmcl.bench import autotune, cases
from mmcl.cli import cli
from mmcl.mesh import data_mesh
from pallas_kernels.pair_reduce import choices

B, D = 160, 8
WORDS = ["--batch", str(B), "--dim", str(D)]
KEYS = ["case", "batch", "dim", "dtype", "call", "impl", "comm", "blocks", "seconds", "chosen"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fewest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a tile were the faster the fewer rows it has; more than 100 columns do not run."""

    def seconds(function: Any, args: Any, call: str, following: Any, repeats: int) -> float:
        rows, cols = following[call]["blocks"]
        if cols > 100:
            raise RuntimeError(f"no room for {cols}\nand more")
        return rows / 1000 + cols / 1000000

    monkeypatch.setattr(engine, "_seconds", seconds)


def bench(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "loss", "--autotune", *words], prog_name="mmcl")


def kept(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def made(name: str, saved: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the engine chooses for the calls of a loss, as a training on this machine makes them."""
    case = cases.build(name, B, D)
    with jax.set_mesh(data_mesh()), choices(saved) as made:
        jax.eval_shape(lambda *args: case.function(*args), *case.args)
    return made


@pytest.mark.long
def test_json_of_real_timings_and_a_file_that_the_engine_follows(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SIZES", (128,))
    result = bench(*WORDS, "--cases", "clip", "--repeats", "1", "--json")
    assert result.stderr == "" and result.exit_code == 0
    got = json.loads(result.stdout)
    file = cache / "engine.json"
    assert list(got) == ["device", "engine", "tried"]
    assert got["device"] == "cpu" and got["engine"] == str(file)
    assert all(list(row) == KEYS and row["seconds"] >= 0 for row in got["tried"])
    assert {(row["case"], row["batch"], row["dim"]) for row in got["tried"]} == {("clip", B, D)}
    (chosen,) = (row for row in got["tried"] if row["chosen"])
    (call,) = made("clip")
    assert chosen["call"] == call
    assert kept(file) == {
        "cpu": {call: {"impl": chosen["impl"], "comm": chosen["comm"], "blocks": chosen["blocks"]}}
    }
    assert made("clip", kept(file)["cpu"]) == kept(file)["cpu"]


def test_the_table_and_what_is_kept_beside_earlier_choices(
    tmp_path: Path, fewest_rows: None
) -> None:
    """Every call of every loss is in the file, with the fewest rows that were tried."""
    file = tmp_path / "mine.json"
    earlier = {"impl": "xla", "comm": "ring", "blocks": [64, 64]}
    file.write_text(json.dumps({"tpu v9": {"a 8x8": earlier}, "cpu": {"a 8x8": earlier}}))
    result = bench(*WORDS, "--cases", "clip,queue", "--engine", str(file))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"batch {B} × {D}, float32, forward and backward, on cpu"
    assert lines[1].split() == ["loss", "call", "impl", "tile", "CPU", "s"]
    assert lines[-2:] == [
        f"Choices: {file}",
        f"Train with them: mmcl train FILE --engine {file}",
    ]
    calls = [*made("clip"), *made("queue")]
    assert len(calls) == 3
    chosen = [line.split() for line in lines if line.endswith("chosen")]
    assert [" ".join(words[1:5]) for words in chosen] == calls
    now = kept(file)
    assert now["tpu v9"] == {"a 8x8": earlier} and list(now["cpu"]) == ["a 8x8", *calls]
    assert all(now["cpu"][call]["blocks"] == [int(w[-5]), int(w[-3])]
               for call, w in zip(calls, chosen))  # fmt: skip
    noted = result.stderr.splitlines()
    assert len(noted) == sum("failed" in line for line in lines)
    assert noted[0].startswith("mmcl: clip xla ") and ": RuntimeError: no room for " in noted[0]


def test_where_nothing_runs_nothing_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_seconds", lambda *_: 1 / 0)
    result = bench(*WORDS, "--cases", "clip")
    assert result.exit_code == 0 and "ZeroDivisionError" in result.stderr
    assert "chosen" not in result.stdout and "Choices" not in result.stdout
    assert not cache.exists()


def test_a_loss_that_cannot_be_built_or_tuned_is_noted(
    tmp_path: Path, fewest_rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    file = tmp_path / "engine.json"
    case = cases.build("clip", B, D)._replace(function=lambda *_: 0.0)
    monkeypatch.setattr(cases, "build", lambda *_: case)
    assert autotune.rows("clip", B, D, "float32", 1, file, notes.append) == []
    monkeypatch.setattr(cases, "build", lambda *_: 1 / 0)
    assert autotune.rows("siglip", B, D, "float32", 1, file, notes.append) == []
    assert notes == [
        "clip: it does not call the pair engine.",
        "siglip: ZeroDivisionError: division by zero",
    ]
    assert not file.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--cases", "clap"], "--cases: there is no 'clap'. Did you mean 'clip'?"),
        (["--spec", "clip-vit-b32"], "--spec: there is no 'clip-vit-b32'. Did you mean 'clip-v"),
        (["--impl", "xla"], "--impl: --autotune tries all that run here; leave it out."),
        (["--engine", "."], "Invalid value for '--engine': File '.' is a directory."),
        (["--engine", "damaged.json"], "damaged.json is damaged (Expecting value: "),
        (["--engine", "damaged.json/e.json"], "/"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setattr(cases, "build", lambda *_: pytest.fail("it was begun"))
    monkeypatch.chdir(tmp_path)
    Path("damaged.json").write_text("?")
    result = bench(*words)
    assert result.exit_code == 2 and not result.stdout, result.output
    (line,) = result.stderr.splitlines()
    assert line.removeprefix("mmcl: ").startswith(message)
    assert Path("damaged.json").read_text() == "?"
