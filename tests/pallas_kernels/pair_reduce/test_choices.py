"""What the engine chose is collected, can be kept as JSON, and is followed where it can be."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from pallas_kernels.pair_reduce import Reduce, choices, pair_reduce, pair_sum


def tile(row, col, params, at):
    return {"s": row @ col.T}


def call(n=24, m=16, **options):
    asked = {"lse": Reduce("logsumexp", "s", "row")}
    return pair_reduce(tile, jnp.ones((n, 4)), jnp.ones((m, 4)), asked, **options)["lse"]


def made_by(saved, *calls):
    """What is chosen for some calls, after a journey through JSON."""
    with choices(saved) as made:
        for one in calls:
            jax.eval_shape(lambda one=one: one())  # anew: jax remembers what it has traced
    return json.loads(json.dumps(made))


def altered(made, **changed):
    return {name: {**choice, **changed} for name, choice in made.items()}


@pytest.fixture
def mesh():
    with jax.set_mesh(jax.make_mesh((2, 4), ("slice", "data"), (AxisType.Auto,) * 2)):
        yield


def test_a_choice_names_the_tile_the_sizes_and_the_devices(mesh):
    made = made_by(None, call, lambda: call(8), lambda: call(mesh_axes=()))
    wide, narrow, single = made
    assert wide.endswith("tile 24x16 float32[4] slice2xdata4")
    assert narrow.endswith("tile 8x16 float32[4] slice2xdata4") and single.endswith(
        "tile 24x16 float32[4]"
    )
    assert made[wide] == {"impl": "xla", "comm": "hierarchical", "blocks": [3, 2]}
    assert made[single] == {"impl": "xla", "comm": None, "blocks": [24, 16]}


def test_earlier_choices_are_followed(mesh):
    saved = altered(made_by(None, call), comm="gather", blocks=[2, 1])
    assert len(saved) == 1 and made_by(saved, call) == saved
    with choices(saved):
        program = str(jax.make_jaxpr(lambda: call())())
    assert "all_gather" in program and "ppermute" not in program
    assert "f32[2,1]" in program


def test_earlier_choices_of_the_implementation_are_followed():
    saved = altered(made_by(None, call), impl="reference")
    with choices(saved) as made:
        assert "scan" not in str(jax.make_jaxpr(lambda: call(blocks=(2, 2)))())
    assert [choice["impl"] for choice in made.values()] == ["reference"]


def test_what_the_caller_names_comes_before_an_earlier_choice(mesh):
    saved = altered(made_by(None, call), comm="gather", blocks=[2, 1])
    (named,) = made_by(saved, lambda: call(comm="ring", blocks=(3, 2), impl="xla")).values()
    assert named == {"impl": "xla", "comm": "ring", "blocks": [3, 2]}


def test_choices_of_other_calls_and_those_that_cannot_be_had_are_ignored(mesh):
    usual = made_by(None, call)
    assert made_by({"elsewhere 1x1": {"impl": "moon"}}, call) == usual
    assert made_by(altered(usual, impl="moon", blocks=[1, 1]), call) == usual
    assert made_by(altered(usual, comm="pigeon", blocks=[1, 1]), call) == usual


def test_pair_sum_is_listened_to_and_nobody_outside_is():
    total = {"s": 1.0}
    (choice,) = made_by(None, lambda: pair_sum(tile, jnp.ones((9, 2)), jnp.ones((5, 2)), total))
    assert choice.endswith("tile 9x5 float32[2]")
    with choices() as made:
        pass
    call()
    assert made == {}
