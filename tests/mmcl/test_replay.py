"""A step made once more is the step that was made; what is not finite is found where it begins."""

import copy
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from data_pipelines.errors import InputError
from mmcl import experiment, metrics_log
from mmcl.debug_nans import first_not_finite
from mmcl.replay import again, before
from mmcl.train import train

pytestmark = pytest.mark.usefixtures("shared_builds")
TOWER = """
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl.models.embedding import Embedding


class Broken(nn.Module):
    where: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="inside")(x)
        if self.where == "forward":
            return jnp.log(-jnp.abs(x) - 1)
        return x + jnp.sqrt(x * 0)  # whose gradient is 0 times infinity


class Tower(nn.Module):
    embed_dim: int
    where: str = "nowhere"

    @nn.compact
    def __call__(self, inputs, *, train):
        x = inputs["value"].reshape(len(inputs["value"]), -1)[:, :6]
        x = nn.Dense(5, name="first")(x)
        if self.where != "nowhere":
            x = Broken(self.where, name="second")(x)
        return Embedding(nn.Dense(self.embed_dim, name="third")(x))
"""


@pytest.fixture
def config(
    tmp_path: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_broken.py").write_text(TOWER)
    tiny_config["towers"]["image"] = {"name": "own_broken"}
    return tiny_config | {"eval": {"splits": []}}


def test_a_step_is_made_once_more(tmp_path: Path, config: dict[str, Any], one_device: Mesh) -> None:
    """From the checkpoint before it, from the start, and in the second of two stages."""
    config |= {"stages": [{"steps": 3}, {"steps": 3, "optimizer": {"name": "lion"}}]}
    folder, told = tmp_path / "run", list[str]()
    train("x.py", copy.deepcopy(config), folder, Console(quiet=True), one_device)
    for step, start in ((1, "the start"), (6, "checkpoint 4"), (5, "checkpoint 4")):
        row = metrics_log.read(folder)[step - 1]
        files = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
        found = again(config, folder, one_device, step, told.append).metrics
        assert told.pop() == f"From {start} to step {step}."
        assert len(found) >= 6 and found == {key: row[key] for key in found}
        assert files == {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    for step in (0, 7):
        with pytest.raises(InputError, match="a step of the run, from 1 to 6"):
            again(config, folder, one_device, step, told.append)


def said(config: dict[str, Any], folder: Path, mesh: Mesh, **changed: Any) -> str:
    with jax.set_mesh(mesh):
        moment = before(experiment.stages(config), folder, mesh, 1, lambda _: None)
        state = moment.state._replace(**changed)
        return first_not_finite(moment.built.stage.settings, state, moment.batch)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param(
            "nowhere",
            r"Once more, and alone, everything in this step is finite\.",
            marks=pytest.mark.long,
        ),
        ("forward", r"The first layer whose output is not finite is image/second\."),
        (
            "backward",
            r"The loss .* first gradient .* is that of image/second/inside/(bias|kernel)\.",
        ),
    ],
)
def test_where_it_begins(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh, where: str, expected: str
) -> None:
    config["towers"]["image"]["where"] = where
    assert re.fullmatch(expected, said(config, tmp_path, one_device))


@pytest.mark.long
def test_a_parameter_and_an_objective(
    tmp_path: Path, config: dict[str, Any], one_device: Mesh
) -> None:
    with jax.set_mesh(one_device):
        params = before(experiment.stages(config), tmp_path, one_device, 1, print).state.params
    broken = jax.tree.map(jnp.copy, params)
    broken["image"]["third"]["bias"] = jnp.full(8, np.nan)
    line = said(config, tmp_path, one_device, params=broken)
    assert line == "The parameter image/third/bias is not finite before this step."
    config["objective"]["name"] = "own_broken_loss"
    (tmp_path / "own_broken_loss.py").write_text(
        "import dataclasses\nimport jax.numpy as jnp\nfrom mmcl.objectives import supcon\n\n\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Objective(supcon.Objective):\n"
        "    def __call__(self, *args):\n"
        "        result = super().__call__(*args)\n"
        "        (name, term), = result.terms.items()\n"
        "        return result._replace(terms={name: term._replace(value_B=term.value_B / 0)})\n"
    )
    line = said(config, tmp_path, one_device)
    assert line == "All towers' outputs are finite, and the objective's value is not."
