"""What the engine chose is written into the run's folder, and followed there ever after."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.errors import InputError
from mmcl.engine_choices import kept_choices
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


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text("{")
    with (
        pytest.raises(InputError, match="engine.json is damaged .*delete it"),
        kept_choices(tmp_path, "cpu"),
    ):
        pass
