"""A plan against what can be counted by hand, for this machine's own (forced) devices."""

import copy
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.mesh import make_mesh
from mmcl.plan import fit
from mmcl.plan.plan import plan
from mmcl.plan.topology import PARTS, Topology, topology
from mmcl.sharding import Placed

PART = PARTS["v5e"]


@pytest.fixture
def here() -> Topology:
    """Eight devices in two groups."""
    devices = jax.devices()
    return Topology("here", PART, devices, {d.id: i // 4 for i, d in enumerate(devices)})


def stage(config: dict[str, Any], width: int, depth: int) -> experiment.Stage:
    config = copy.deepcopy(config)
    for tower in config["towers"].values():
        tower |= {"width": width, "depth": depth}
    config |= {"objective": {"name": "infonce"}, "embed_dim": 32, "batch_size": 32}
    return experiment.stages(config)[0]


def by_hand(made: experiment.Stage) -> float:
    """2 · multiply-adds of products, forward and backward, of one global batch."""
    settings = made.settings
    batch, out = settings.batch_size, settings.embed_dim
    total = 4 * 2.0 * batch * batch * out  # the loss: one product forward, three backward
    for modality, (tokens, patch) in {"image": (4, 8 * 8 * 3), "text": (8, 0)}.items():
        tower = settings.towers[modality]
        width, depth = tower["width"], tower["depth"]
        block = 2 * width * (3 * width + width + 8 * width) + 4 * tokens * width
        forward = tokens * (depth * block + 2 * width * out)
        stem = 2 * tokens * patch * width  # nobody asks for the gradient of pixels
        pooled = 2 * tokens * out if modality == "text" else 0
        total += batch * (3 * forward + 2 * stem + 2 * pooled)
    return total


@pytest.mark.parametrize(("width", "depth"), [(16, 1), (64, 2), (96, 1)])
def test_operations_and_bytes_as_counted_by_hand(tiny_config, here, width, depth):
    made = stage(tiny_config, width, depth)
    found = plan(made, here)
    assert found.flops * 8 == pytest.approx(by_hand(made), rel=0.03)
    assert found.params_bytes == found.ema_bytes and found.optimizer_bytes > 2 * found.params_bytes
    # Gradients are added up over all devices; beside them what the loss sends is little.
    gradients = 2 * 7 / 8 * found.params_bytes
    if width > 16:
        assert sum(found.collective_bytes.values()) == pytest.approx(gradients, rel=0.05)
    assert found.limited_by == "network" and found.step_s == found.network_s  # groups, slow links
    assert found.examples_per_s == pytest.approx(32 / found.step_s)
    assert found.device_hours == pytest.approx(6 * found.step_s * 8 / 3600)
    assert found.fits and 0 < found.peak_bytes < found.hbm_bytes
    parts = ("params", "optimizer", "ema", "objective", "batch", "loss_temp", "activation")
    assert sum(getattr(found, f"{part}_bytes") for part in parts) >= found.peak_bytes


def test_parameters_that_are_shared_out_take_less(tiny_config, here):
    made = stage(tiny_config | {"mesh": {"data": 1, "fsdp": -1}}, 32, 1)
    found = plan(made, here)
    assert found.mesh == {"data": 1, "fsdp": 8}
    placed = build(made, make_mesh(made.settings.mesh)).placed.params
    listed = jax.tree.leaves(placed, is_leaf=lambda one: isinstance(one, Placed))
    assert found.params_bytes == sum(one.device_nbytes for one in listed)
    assert found.params_bytes < sum(one.nbytes for one in listed) / 4
    assert found.collective_bytes["all-gather"] > 0


class Made(SimpleNamespace):
    """A plan of which only this is asked."""


@pytest.mark.parametrize(("room", "largest"), [(100, 96), (16, 16), (1000, 960), (33, 32)])
def test_the_largest_batch_that_fits(tiny_config, here, monkeypatch, room, largest):
    tried = []

    def plan(stage, on, *, quick):
        size = stage.settings.batch_size
        tried.append(size)
        return Made(batch_size=size, fits=size <= room, peak_bytes=size, hbm_bytes=room)

    monkeypatch.setattr(fit, "plan", plan)
    found = fit.batch_that_fits(experiment.stages(tiny_config)[0], here, lambda line: None)
    assert found.batch_size == largest and len(tried) < 14
    assert all(size % 8 == 0 for size in tried)


def test_not_even_one_example_fits(tiny_config, here, monkeypatch):
    made = Made(batch_size=8, fits=False, peak_bytes=2, hbm_bytes=1)
    monkeypatch.setattr(fit, "plan", lambda *args, **options: made)
    with pytest.raises(InputError, match="Not even one example a device fits"):
        fit.batch_that_fits(experiment.stages(tiny_config)[0], here, lambda line: None)


@pytest.mark.parametrize(("needs", "fsdp"), [(1, 1), (3, 4), (8, 8)])
def test_the_mesh_that_shares_out_least(tiny_config, here, monkeypatch, needs, fsdp):
    def plan(stage, on, *, quick):
        size = stage.settings.mesh.fsdp
        return Made(fsdp=size, fits=size >= needs, peak_bytes=1, hbm_bytes=1)

    monkeypatch.setattr(fit, "plan", plan)
    lines: list[str] = []
    assert fit.mesh_that_fits(tiny_config, 0, here, lines.append).fsdp == fsdp
    assert lines[0].startswith("--config.mesh.fsdp=8 --config.towers.image.remat=none ")
    with pytest.raises(InputError, match="No mesh of these devices holds this batch"):
        needs = 9
        fit.mesh_that_fits(tiny_config, 0, here, lines.append)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5x:4x4", "there is no 'v5x:4x4'. Did you mean 'v5"),
        ("v5e", "'v5e' should be like v5e:4x4"),
        ("v5e:4x4x4", "'v5e:4x4x4' should be like v5e:4x4"),
        ("v5p:4x4", "'v5p:4x4' should be like v5p:4x4x4"),
        ("h100", "'h100' should be like h100:4x4"),
    ],
)
def test_a_topology_that_there_is_not(name, said):
    with pytest.raises(InputError, match=f"--topology: {said}"):
        topology(name)
