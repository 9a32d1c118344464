"""What the engine chose is written into the run's folder, and followed there ever after."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.errors import InputError
from mmcl.engine_choices import add, kept_choices, measured_choices
from pallas_kernels.pair_reduce import Reduce, pair_reduce

X = jnp.ones((6, 2))


def scores(row, col, params, at):
    return {"score": row @ col.T}


def reduce_once() -> None:
    pair_reduce(scores, X, X, {"s": Reduce("sum", "score", "row")})


def only_call(folder: Path, kind: str = "cpu") -> dict:
    (call,) = json.loads((folder / "engine.json").read_text())[kind].values()
    return call


def test_they_are_written_once_and_followed(tmp_path: Path) -> None:
    with kept_choices(tmp_path, "cpu") as keep:
        keep()
        assert not (tmp_path / "engine.json").exists()
        reduce_once()
        keep()
    assert only_call(tmp_path) == {"impl": "xla", "comm": None, "blocks": [6, 6]}

    file = tmp_path / "engine.json"
    kept = json.loads(file.read_text())
    (call,) = kept["cpu"].values()
    call["blocks"] = [4, 3]
    file.write_text(json.dumps(kept))
    with kept_choices(tmp_path, "cpu") as keep:
        program = str(jax.make_jaxpr(reduce_once)())
        keep()
    assert "f32[4,3]" in program and "f32[6,6]" not in program
    assert json.loads(file.read_text()) == kept


def test_another_kind_of_device_chooses_anew(tmp_path: Path) -> None:
    for kind in ("cpu", "tpu v9"):
        with kept_choices(tmp_path, kind) as keep:
            reduce_once()
            keep()
    assert only_call(tmp_path, "cpu") == only_call(tmp_path, "tpu v9")


# Choices that were measured before


def tuned(blocks: list[int], impl: str = "xla") -> dict:
    """The call of `reduce_once`, as a file of measurements has it."""
    call = f"{scores.__module__}.scores 6x6 float32[2]"
    return {call: {"impl": impl, "comm": None, "blocks": blocks}}


def test_a_run_begins_with_what_is_given_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept_choices(tmp_path, "cpu", {"cpu": tuned([4, 3])}) as keep:
        program = str(jax.make_jaxpr(lambda: reduce_once())())
        keep()
    assert "f32[4,3]" in program and "f32[6,6]" not in program
    assert only_call(tmp_path)["blocks"] == [4, 3]

    with kept_choices(tmp_path, "cpu", {"cpu": tuned([2, 5])}) as keep:  # a resume
        program = str(jax.make_jaxpr(lambda: reduce_once())())
        keep()
    assert "f32[4,3]" in program and "f32[2,5]" not in program
    assert only_call(tmp_path)["blocks"] == [4, 3]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("given", [{}, {"tpu v9": tuned([4, 3])}, {"cpu": {"elsewhere 6x6": {}}}])
def test_what_is_not_given_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict
) -> None:
    with kept_choices(tmp_path, "cpu", given) as keep:
        jax.eval_shape(lambda: reduce_once())
        keep()
        keep()
    (line,) = capsys.readouterr().err.splitlines()
    call = f"{scores.__module__}.scores 6x6 float32[2]"
    assert line == f"mmcl: --engine has nothing for {call} on cpu; the engine chose."
    assert only_call(tmp_path)["blocks"] == [6, 6]
    with kept_choices(tmp_path, "cpu", given) as keep:  # a resume has its own
        jax.eval_shape(lambda: reduce_once())
        keep()
    assert capsys.readouterr().err == ""


def test_a_call_that_comes_later_is_looked_for_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a second stage: only what is new and not given is named."""
    (tmp_path / "engine.json").write_text(json.dumps({"cpu": tuned([4, 3])}))
    with kept_choices(tmp_path, "cpu", {}) as keep:
        jax.eval_shape(lambda: reduce_once())
        pair_reduce(scores, X[:4], X, {"s": Reduce("sum", "score", "row")})
        keep()
    (line,) = capsys.readouterr().err.splitlines()
    assert f" for {scores.__module__}.scores 4x6 float32[2] on cpu;" in line
    assert len(json.loads((tmp_path / "engine.json").read_text())["cpu"]) == 2


def test_measurements_are_added_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "engine.json"
    other = {"elsewhere 6x6": {"impl": "xla", "comm": None, "blocks": [1, 1]}}
    add(file, "cpu", {**other, **tuned([4, 3])})
    add(file, "tpu v9", tuned([8, 8]))
    add(file, "cpu", tuned([2, 5]))
    assert json.loads(file.read_text()) == {
        "cpu": {**other, **tuned([2, 5])},
        "tpu v9": tuned([8, 8]),
    }
    assert [path.name for path in file.parent.iterdir()] == ["engine.json"]


def test_a_file_is_whole_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends while it writes leaves what was there before."""
    file = tmp_path / "engine.json"
    add(file, "cpu", tuned([4, 3]))
    before = file.read_text()
    write = Path.write_text

    def interrupted(path: Path, text: str) -> None:
        write(path, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(file, "cpu", tuned([2, 5]))
    assert file.read_text() == before


def test_a_file_that_the_disk_does_not_take_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine.json.part").mkdir()
    with pytest.raises(InputError, match="cannot be written .*another place with --engine"):
        add(tmp_path / "engine.json", "cpu", tuned([4, 3]))
    (tmp_path / "engine.json").mkdir()
    with pytest.raises(InputError, match=r"engine.json cannot be read \(Is a directory\)"):
        measured_choices(tmp_path / "engine.json")


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no .*`mmcl bench loss --autotune` writes one"):
        measured_choices(tmp_path / "engine.json")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"cpu": 3}', '{"cpu": {"call": 3}}', '{"cpu": {"call": {"impl": "xla"}}}']
    + [
        json.dumps({"cpu": {"call": {"impl": "xla", "comm": None, "blocks": blocks}}})
        for blocks in (None, 3, [8], [8, 0], [8, "8"], [8, 8, 8])
    ],
)
def test_a_damaged_file_of_measurements_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "engine.json"
    file.write_text(text)
    for use in (measured_choices, lambda file: add(file, "cpu", tuned([4, 3]))):
        with pytest.raises(InputError, match=r"engine\.json is damaged .*loss --autotune`"):
            use(file)
    assert file.read_text() == text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text("{")
    with (
        pytest.raises(InputError, match="engine.json is damaged .*delete it"),
        kept_choices(tmp_path, "cpu"),
    ):
        pass
