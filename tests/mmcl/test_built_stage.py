"""A stage in half precision: what is bfloat16 in the compiled step, what stays float32, how near
its gradients are.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import BuiltStage, build
from mmcl.feed import Feed
from mmcl.rejected_log import RejectedLog
from mmcl.state import TrainState


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """One step leaves the gradient in the optimiser."""
    return tiny_config | {"optimizer": {"name": "sgd", "momentum": 0.9}}


def built(config: dict[str, Any], mesh: Mesh, **changes: Any) -> BuiltStage:
    with jax.set_mesh(mesh):
        return build(experiment.stages(config | changes)[0], mesh)


def batches(stage: BuiltStage, folder: Any) -> Iterator[Any]:
    with jax.set_mesh(stage.mesh):
        yield from Feed(stage, 0, {}, RejectedLog(folder, 0, {}, "emoji"))


def products(jaxpr: Any) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Of every matrix product: whether it is a tower's, and the dtypes of its sides."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            sides = tuple(str(x.aval.dtype) for x in equation.invars)
            yield "Tower" in str(equation.source_info.name_stack), sides
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if isinstance(inner, core.ClosedJaxpr):
                yield from products(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_towers_compute_in_the_given_precision_and_the_loss_in_float32(
    config: dict[str, Any], one_device: Mesh, tmp_path: Any, precision: str
) -> None:
    stage = built(config, one_device, precision=precision)
    with jax.set_mesh(one_device):
        batch = next(batches(stage, tmp_path))
        state = jax.eval_shape(stage.init)
        traced = stage.train_step.trace(state, batch)  # type: ignore[attr-defined]
    found = list(products(traced.jaxpr.jaxpr))
    of_towers = [sides for towers, sides in found if towers]
    of_loss = [sides for towers, sides in found if not towers]
    # Backward, JAX keeps the cotangents of attention scores in float32: two products a block.
    mixed = [sides for sides in of_towers if sides != (precision, precision)]
    assert len(of_towers) > 40 and set(mixed) <= {("float32", "bfloat16")} and len(mixed) <= 4
    assert len(of_loss) == 4 and set(of_loss) == {("float32", "float32")}
    after, metrics = traced.out_info
    assert metrics.pop("bad").dtype == "int32"
    kept = (after.params, after.optimizer, after.ema, metrics)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(kept)} == {"float32"}


def gradient(stage: BuiltStage, folder: Any) -> tuple[dict[str, Any], float]:
    """That of the first step, by tower, and the loss."""
    with jax.set_mesh(stage.mesh):
        before = stage.init()
        after, metrics = stage.train_step(before, next(batches(stage, folder)))
    momentum = jax.tree.leaves(after.optimizer)
    named = jax.tree.unflatten(jax.tree.structure(after.params), momentum)
    return named, float(metrics["loss"])


def test_gradients_in_bfloat16_are_near_those_in_float32(
    config: dict[str, Any], one_device: Mesh, tmp_path: Any
) -> None:
    """As a whole, and in their largest entry; a unit roundoff of bfloat16 is 0.004."""
    full, loss = gradient(built(config, one_device), tmp_path)
    half, half_loss = gradient(built(config, one_device, precision="bfloat16"), tmp_path)
    assert half_loss == pytest.approx(loss, rel=1e-2) and half_loss != loss
    for tower in ("image", "text"):
        a, b = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree[tower])])
            for tree in (half, full)
        )
        assert 1e-4 < np.linalg.norm(a - b) / np.linalg.norm(b) <= 0.05
        assert np.abs(a - b).max() / np.abs(b).max() <= 0.05


def steps(stage: BuiltStage, folder: Any, count: int) -> tuple[TrainState, list[dict[str, Any]]]:
    with jax.set_mesh(stage.mesh):
        state, rows = stage.init(), []
        for batch, _ in zip(batches(stage, folder), range(count)):
            state, metrics = stage.train_step(state, batch)
            rows.append(jax.device_get(metrics))
    return state, rows


def test_a_narrow_state_halves_the_optimisers_bytes_and_changes_no_gradient(
    tiny_config: dict[str, Any], one_device: Mesh, tmp_path: Any
) -> None:
    narrow_section = tiny_config["optimizer"] | {"state_dtype": "bfloat16"}
    full = built(tiny_config, one_device)
    narrow = built(tiny_config, one_device, optimizer=narrow_section)
    # what `mmcl inspect` and `mmcl plan` count
    sizes = [
        sum(one.nbytes for one in jax.tree.leaves(stage.placed.optimizer, is_leaf=is_placed))
        for stage in (full, narrow)
    ]
    assert sizes[1] == pytest.approx(sizes[0] / 2, abs=16)
    (a, rows_a), (b, rows_b) = (steps(stage, tmp_path, 1) for stage in (full, narrow))
    for name in ("loss", "grad_norm/image", "grad_norm/text", "grad_norm/objective"):
        assert rows_a[0][name] == rows_b[0][name], name
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    kept = {str(leaf.dtype) for leaf in jax.tree.leaves(b.optimizer) if leaf.ndim}
    assert kept == {"bfloat16"}


def is_placed(x: Any) -> bool:
    return hasattr(x, "nbytes")


def test_transforms_that_give_no_value_are_refused(
    config: dict[str, Any], one_device: Mesh
) -> None:
    transforms = config["transforms"] | {"image": [{"name": "image.composite"}]}
    with pytest.raises(InputError, match=r"config.transforms.image: .* end with one that does"):
        built(config, one_device, transforms=transforms)
