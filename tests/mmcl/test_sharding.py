"""Rules on names: what is shared out over which axis, and what every device holds."""

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.errors import InputError
from mmcl.mesh import Axes, make_mesh
from mmcl.sharding import Placed, placements, shardings
from mmcl.state import TrainState

S = jax.ShapeDtypeStruct


def state(**params):
    tower = {"up": {"kernel": S((16, 64), jnp.float32), "bias": S((64,), jnp.float32)}, **params}
    adam = {"mu": {"image": tower}, "count": S((), jnp.int32)}
    queue = {"queue": {"z": S((32, 6), jnp.float32)}, "slot": S((), jnp.int32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    return TrainState(S((), jnp.int32), {"image": tower}, adam, queue, None, key)


def by_name(placed):
    leaves = jax.tree.leaves(placed, is_leaf=lambda one: isinstance(one, Placed))
    return {one.name: one for one in leaves}


def test_parameters_and_their_moments_lie_alike():
    found = by_name(placements(state(), make_mesh(Axes(data=1, fsdp=4, tensor=2))))
    for above in ("params", "optimizer/mu"):
        up = found[f"{above}/image/up/kernel"]
        assert up.axes == (("fsdp",), ("tensor",))
        assert (up.nbytes, up.device_nbytes) == (4096, 512)
        assert found[f"{above}/image/up/bias"].axes == (("tensor",),)
    assert found["step"].axes == () and found["key"].axes == ()


def test_an_objectives_memory_lies_as_batches_do():
    found = by_name(placements(state(), make_mesh(Axes(slice=2, fsdp=2, tensor=2))))
    assert found["objective/queue/z"].axes == (("slice", "data", "fsdp"), ())
    assert found["objective/queue/z"].device_nbytes == 32 * 6 * 4 // 4


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((8, 12, 3), ((), ("fsdp",), ())),  # the longest
        ((7, 4), ((), ("fsdp",))),  # the longest that divides
        ((3, 5), ((), ())),
        ((64,), ((),)),
    ],
)
def test_without_a_rule_matrices_are_cut_over_fsdp(shape, axes):
    made = placements(state(odd=S(shape, jnp.float32)), make_mesh(Axes(fsdp=4)))
    assert by_name(made)["params/image/odd"].axes == axes


def test_the_configs_rules_come_first():
    rules = [["up/kernel$", [None, ["data", "fsdp"]]], ["up/kernel$", ["fsdp", None]]]
    found = by_name(placements(state(), make_mesh(Axes(fsdp=4)), rules))
    assert found["params/image/up/kernel"].axes == ((), ("data", "fsdp"))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            ["up/kernel$", ["fsdp", "model"]],
            "there is no axis 'model'; there are slice, data, fsdp",
        ),
        (["down/kernel$", ["fsdp", None]], "'down/kernel.' matches no array of 2 dimensions"),
        (["up/kernel$", ["fsdp"]], "'up/kernel.' matches no array of 1 dimensions"),
        (["up/(kernel$", ["fsdp", None]], "is not a regex"),
        ("up/kernel", "is not a rule; write"),
        (["odd$", ["fsdp", None]], "dimension 0 of params/image/odd is 6, which does not divide"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, said):
    with pytest.raises(InputError, match=rf"config\.sharding\.0: .*{said}"):
        placements(state(odd=S((6, 4), jnp.float32)), make_mesh(Axes(fsdp=4)), [rule])


def test_arrays_are_made_where_they_belong():
    mesh = make_mesh(Axes(fsdp=2, tensor=2))
    where = shardings(placements(state(), mesh), mesh)
    made = jax.jit(
        lambda: jax.tree.map(
            lambda x: jax.random.key(0) if "key" in str(x.dtype) else jnp.zeros(x.shape, x.dtype),
            state(),
        ),
        out_shardings=where,
    )()
    up = made.params["image"]["up"]["kernel"]
    assert {s.data.shape for s in up.addressable_shards} == {(8, 32)}
