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


def text(function, *shapes, mesh, specs):
    args = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs)
    ]
    with jax.set_mesh(mesh):
        return jax.jit(function).lower(*args).compile().as_text()


def compiled(function, *shapes, mesh, specs):
    return Program(text(function, *shapes, mesh=mesh, specs=specs))


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

    noted = text(mapped(rounds, mesh, P("data")), (8 * N,), mesh=mesh, specs=[P("data")])
    told = '"known_trip_count":{"n":"5"}'
    assert told in noted
    for program in (Program(noted), Program(noted.replace(told, ""))):  # as for TPUs
        (one,) = program.collectives()
        assert (one.times, one.link_bytes) == (5, 5 * N * F32)
        assert program.moved_bytes() >= 5 * 2 * N * F32  # each round reads and writes all of it


def test_of_what_a_loop_cuts_up_each_part_moves_once():
    """Weights of layers that are stacked, and what each layer leaves for the backward pass."""
    layers, n = 16, 256

    def loss(w_LxNxN, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w_LxNxN)[0].sum()

    program = compiled(
        jax.grad(loss), (layers, n, n), (n, n), mesh=make_mesh(Axes()), specs=[P(), P()]
    )
    # Forward and backward a layer takes some twenty matrices, read or written.
    each = program.moved_bytes() / (layers * n * n * F32)
    assert 20 < each < 60  # and some copies of x; all weights for each layer would be 250


def test_without_loops_it_is_what_xla_counts():
    def some(x, w):
        return jnp.tanh(x @ w).sum(0) @ w

    mesh = make_mesh(Axes())
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((512, 256), (256, 256))]
    xla = jax.jit(some).lower(*shapes).compile().cost_analysis()["bytes accessed"]
    ours = compiled(some, (512, 256), (256, 256), mesh=mesh, specs=[P(), P()]).moved_bytes()
    assert ours == pytest.approx(xla, rel=0.02)


def test_what_stays_on_the_chip_does_not_move():
    """As programs for TPUs say it; and room that is set aside is not written."""
    program = Program("""
ENTRY %main (a: f32[1024]) -> f32[1024] {
  %a = f32[1024]{0:T(1024)} parameter(0)
  %b = f32[1024]{0:T(1024)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %c = f32[1024]{0:T(1024)} custom-call(), custom_call_target="AllocateBuffer"
  %d = f32[1024]{0:T(1024)S(1)} negate(%a)
  ROOT %e = f32[1024]{0:T(1024)} add(%d, %d)
}
""")
    assert program.moved_bytes() == 2 * 1024 * F32


def test_what_goes_on_during_others_happens_once():
    """As programs for TPUs say it: begun, moved on in each round of a loop, ended."""
    gathered = """
%{name} (p{name}: f32[128]) -> f32[1024] {{
  %p{name} = f32[128]{{0}} parameter(0)
  ROOT %gather.{name} = f32[1024]{{0}} all-gather(%p{name}), channel_id=7, replica_groups=[1,8]<=[8]
}}
"""
    round = """
%round (s: (f32[128])) -> (f32[128]) {
  %s = (f32[128]{0}) parameter(0)
  %x = f32[128]{0} get-tuple-element(%s), index=0
  %more = f32[1024]{0} fusion(%x), kind=kCustom, calls=%going_on
  ROOT %t = (f32[128]{0}) tuple(%x)
}

%always (u: (f32[128])) -> pred[] {
  %u = (f32[128]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: f32[128]) -> f32[1024] {
  %a = f32[128]{0} parameter(0)
  %begun = f32[1024]{0} fusion(%a), kind=kCustom, calls=%begin
  %state = (f32[128]{0}) tuple(%a)
  %loop = (f32[128]{0}) while(%state), condition=%always, body=%round, "known_trip_count":{"n":"4"}
  ROOT %ended = f32[1024]{0} fusion(%a), kind=kCustom, calls=%end
}
"""
    pieces = (gathered.format(name=name) for name in ("begin", "going_on", "end"))
    (one,) = Program("".join(pieces) + round).collectives()
    assert (one.kind, one.times, one.link_bytes) == ("all-gather", 1, 7 / 8 * N * F32)


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
