"""A run that goes on with other devices, laid out otherwise, is the same run up to rounding."""

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from mmcl import metrics_log
from mmcl.live import LiveLine
from mmcl.mesh import Axes, make_mesh
from mmcl.train import train

STEPS = 12
OWN = f'''
"""The records of all steps so far, in their order, beside an exact objective."""

import dataclasses

import jax.numpy as jnp
from mmcl.objectives import supcon


@dataclasses.dataclass(frozen=True)
class Objective(supcon.Objective):
    def init_state(self, key):
        return {{"steps": jnp.int32(0), "records": jnp.full(({STEPS}, 16), -1)}}

    def __call__(self, params, state, embeddings, batch, key):
        result = super().__call__(params, None, embeddings, batch, key)
        records = state["records"].at[state["steps"]].set(batch["index"])
        return result._replace(state={{"steps": state["steps"] + 1, "records": records}})
'''


class Killed(Exception):
    pass


def state(folder: Path) -> dict[str, Any]:
    with ocp.StandardCheckpointer() as reader:
        found: dict[str, Any] = reader.restore(
            (folder / "checkpoints" / str(STEPS) / "state").absolute()
        )
    return jax.tree.map(np.asarray, {name: found[name] for name in ("params", "objective")})


@pytest.mark.long
@pytest.mark.parametrize(
    "meshes",
    [
        [(8, Axes()), (4, Axes()), (1, Axes())],
        [(8, Axes(fsdp=4)), (4, Axes(fsdp=2, tensor=2)), (8, Axes(slice=2, tensor=4))],
        [(1, Axes()), (2, Axes(tensor=2)), (8, Axes(fsdp=8))],
    ],
    ids=["8-4-1", "other-splits", "1-2-8"],
)
def test_other_devices_go_on(
    tmp_path: Path,
    tiny_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    meshes: list[tuple[int, Axes]],
) -> None:
    """Killed after every fourth step, saved after every second; by plain gradient steps, for Adam
    blows rounding up where a gradient is nearly zero.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_records.py").write_text(OWN)
    config = tiny_config | {
        "steps": STEPS,
        "objective": {"name": "own_records", "positives": "concept"},
        "optimizer": {"name": "sgd", "momentum": 0.9, "clip_norm": 1.0},
        "schedule": {"name": "constant", "peak": 0.1},
        "eval": {"splits": []},
    }
    step = LiveLine.step

    def killing(at: int) -> None:
        def kill(self: LiveLine, done: int) -> None:
            if done > at:
                raise Killed
            step(self, done)

        monkeypatch.setattr(LiveLine, "step", kill)

    def run(folder: Path, devices: int, axes: Axes) -> None:
        mesh = make_mesh(axes, jax.devices()[:devices])
        train("x.py", copy.deepcopy(config), folder, Console(quiet=True), mesh)

    straight, moved = tmp_path / "straight", tmp_path / "moved"
    run(straight, 1, Axes())
    for at, (devices, axes) in zip((4, 8, STEPS), meshes, strict=True):
        killing(at)
        if at < STEPS:
            with pytest.raises(Killed):
                run(moved, devices, axes)
        else:
            run(moved, devices, axes)

    monkeypatch.setattr(LiveLine, "step", step)
    ours, theirs = state(moved), state(straight)
    assert theirs["objective"]["steps"] == STEPS and (theirs["objective"]["records"] >= 0).all()
    np.testing.assert_array_equal(ours["objective"]["records"], theirs["objective"]["records"])
    rows, expected = metrics_log.read(moved), metrics_log.read(straight)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    drift = [abs(a["train/loss"] / b["train/loss"] - 1) for a, b in zip(rows, expected)]
    assert max(drift) <= 1e-5
    for a, b in zip(
        jax.tree.leaves(ours["params"]), jax.tree.leaves(theirs["params"]), strict=True
    ):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    print(f"drift {max(drift):.1e}")
