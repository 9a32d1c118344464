"""The steps of the experiments for pods, compiled for 256 devices: the loss takes no more memory
where the batch is larger by more devices, and nothing is as long as the global batch.
"""

import importlib.util
import re

import jax
import pytest

from mmcl import config as configs
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.mesh import Axes, make_mesh
from mmcl.plan.plan import QUICK, batch_shapes, plan, state_shapes
from mmcl.plan.program import Program, by_kind
from mmcl.plan.topology import topology
from mmcl.sharding import Placed

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="compiling needs libtpu: jax[tpu]"
    ),
]


def stage(name: str, each: int, devices: int) -> experiment.Stage:
    """An experiment with one block a tower, which compile soon, and the whole of its loss."""
    changes = [("batch_size", str(each * devices))]
    for tower in ("image", "text"):
        changes += [(f"towers.{tower}.depth", "1"), (f"towers.{tower}.scan", "True")]
    return experiment.stages(configs.load(f"experiments/{name}.py:synthetic", changes))[0]


@pytest.mark.parametrize(
    ("name", "each"),  # 33,024 and 262,400 pairs, no product of others
    [("clip_b16", 129), ("siglip_b16", 1025), ("siglip_l14", 129)],
)
def test_nothing_is_as_long_as_the_batch(name: str, each: int) -> None:
    """And what is sent is what is counted by hand: gradients in bfloat16, embeddings in a ring."""
    on = topology("v5e:16x16")
    made = stage(name, each, len(on.devices))
    mesh = make_mesh(made.settings.mesh, on.devices)
    built = build(made, mesh)
    with jax.set_mesh(mesh):
        step = built.train_step.trace(state_shapes(built), batch_shapes(built))  # type: ignore[attr-defined]
        text = step.lower().compile(compiler_options=QUICK).as_text()
    sizes = {
        int(n) for dims in re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", text) for n in dims.split(",")
    }
    assert each in sizes
    assert not any(n % (each * 256) == 0 for n in sizes - {0})
    if "fsdp" not in mesh.shape:
        sent = by_kind(Program(text).collectives())
        held = jax.tree.leaves(built.placed.params, is_leaf=lambda one: isinstance(one, Placed))
        parameters = sum(one.nbytes for one in held) // 4
        assert sent["all-reduce"] == pytest.approx(2 * 255 / 256 * 2 * parameters, rel=0.05)
        passes = {"clip_b16": 3, "siglip_b16": 2}[name]  # of embeddings, or their gradients
        assert sent["collective-permute"] == pytest.approx(
            255 * passes * each * made.settings.embed_dim * 4, rel=0.05
        )


def test_the_loss_takes_as_much_on_16_times_the_devices() -> None:
    few, many = topology("v5p:2x4x4"), topology("v5p:8x8x8")
    found = [plan(stage("clip_b16", 64, len(on.devices)), on, quick=True) for on in (few, many)]
    assert [one.batch_size for one in found] == [2048, 32_768]
    assert found[0].loss_temp_bytes == pytest.approx(found[1].loss_temp_bytes, rel=0.01)
    assert 0 < found[1].loss_temp_bytes < 2**23


@pytest.mark.parametrize("name", ["v5p:4x4x4", "v5p:4x4x4*2"])
def test_a_mesh_that_is_no_product_of_the_axes_of_the_torus(name: str) -> None:
    on = topology(name)
    slices = len(on.devices) // 64
    mesh = make_mesh(Axes(slice=slices, data=-1, fsdp=8), on.devices)
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == (8, 8)
    assert len(set(mesh.devices.flat)) == len(on.devices)
