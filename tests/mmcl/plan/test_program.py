"""Bytes counted in compiled programs, against what is known of them by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmcl.mesh import Axes, make_mesh
from mmcl.plan.program import Program, _groups, by_kind, crosses

P = PartitionSpec
N = 1024
F32 = 4


def compiled(function, *shapes, mesh, specs):
    args = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs)
    ]
    with jax.set_mesh(mesh):
        return Program(jax.jit(function).lower(*args).compile().as_text())


def mapped(function, mesh, out):
    return partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=out, check_vma=False)(
        function
    )


@pytest.mark.parametrize(
    ("function", "out", "kind", "sent"),
    [
        (lambda x: jax.lax.all_gather(x, "data"), P(), "all-gather", 7 * N * F32),
        (lambda x: jax.lax.psum(x, "data"), P(), "all-reduce", 2 * N * F32 * 7 / 8),
        (
            lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
            P("data"),
            "reduce-scatter",
            N * F32 * 7 / 8,
        ),
        (
            lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
            P("data"),
            "collective-permute",
            N * F32,
        ),
        (
            lambda x: jax.lax.all_to_all(x.reshape(8, -1), "data", 0, 0),
            P("data"),
            "all-to-all",
            N * F32 * 7 / 8,
        ),
    ],
)
def test_what_each_kind_sends(function, out, kind, sent):
    """By the ring algorithm, with N numbers on each of 8 devices."""
    mesh = make_mesh(Axes())
    program = compiled(mapped(function, mesh, out), (8 * N,), mesh=mesh, specs=[P("data")])
    assert by_kind(program.collectives()) == {kind: pytest.approx(sent)}


def test_a_loop_counts_as_often_as_it_runs():
    mesh = make_mesh(Axes())

    def rounds(x):
        def once(x, _):
            return jnp.sin(jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])), None

        return jax.lax.scan(once, x, length=5)[0]

    program = compiled(mapped(rounds, mesh, P("data")), (8 * N,), mesh=mesh, specs=[P("data")])
    (one,) = program.collectives()
    assert (one.times, one.link_bytes) == (5, 5 * N * F32)
    assert program.moved_bytes() >= 5 * 2 * N * F32  # each round reads and writes all of it


def test_sharded_parameters_are_gathered_where_they_are_used():
    mesh = make_mesh(Axes(data=1, fsdp=-1))
    program = compiled(
        lambda x, w: x @ w,
        (8 * 16, 32),
        (32, 64),
        mesh=mesh,
        specs=[P("fsdp"), P("fsdp")],
    )
    assert by_kind(program.collectives()) == {"all-gather": 32 * 64 * F32 * 7 / 8}


def test_who_takes_part():
    mesh = make_mesh(Axes(slice=2, data=2, fsdp=2))
    program = compiled(
        lambda x: jax.lax.with_sharding_constraint(x, P(("data", "fsdp"))),
        (8 * N,),
        mesh=mesh,
        specs=[P(("slice", "data", "fsdp"))],
    )
    slices = {i: i // 4 for i in range(8)}
    assert any(crosses(one, slices) for one in program.collectives())
    assert not any(crosses(one, dict.fromkeys(range(8), 0)) for one in program.collectives())


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, use", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], use", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), use", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}, x", [[0, 1], [1, 0]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, use", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, use", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}, use", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, use", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        (
            "replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, use",
            [[0, 2], [1, 3]],
        ),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", [[3, 2], [1, 0]]),
        ("channel_id=1", []),
    ],
)
def test_groups_as_programs_write_them(text, groups):
    assert _groups(text) == groups


def test_what_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("HloModule nothing")
