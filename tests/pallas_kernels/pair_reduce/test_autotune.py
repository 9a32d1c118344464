"""The search finds the cheapest tile, passes over what fails, and its result is followed."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import pytest

import pallas_kernels.pair_reduce.autotune as module
from pallas_kernels.pair_reduce import Reduce, choices, pair_reduce
from pallas_kernels.pair_reduce.autotune import autotune, implementations, search
from pallas_kernels.pair_reduce.choices import Choice

SIDES = (4096, 4096)


def tile(row, col, params, at):
    return {"s": row @ col.T}


def other_tile(row, col, params, at):
    return {"s": 2.0 * (row @ col.T)}


def one(tile, x):
    asked = {"lse": Reduce("logsumexp", "s", "row")}
    return pair_reduce(tile, x, x, asked)["lse"].sum()


def two(x):
    return one(tile, x) + one(other_tile, x)


def xla(r, c):
    return Choice("xla", None, (r, c))


def blocks(costs):
    return [choice.blocks for choice in costs]


def cheapest(costs):
    return min(costs, key=costs.__getitem__)


def away_from(r, c):
    """A cost that is least at one tile and grows with every step away from it."""

    def cost(choice):
        return 1 + sum(abs(math.log2(a / b)) for a, b in zip(choice.blocks, (r, c)))

    return cost


# The search


@pytest.mark.parametrize("best", [(128, 128), (1024, 128), (256, 512), (1024, 1024)])
@pytest.mark.parametrize("start", [(1024, 1024), (683, 200), (16, 8)])
def test_it_finds_the_best_tile_and_asks_for_each_once(best, start):
    asked = []

    def cost(choice):
        asked.append(choice)
        return away_from(*best)(choice)

    costs = search(cost, [xla(*start)], SIDES)
    assert cheapest(costs) == xla(*best)
    assert list(costs) == asked and len(set(asked)) == len(asked)
    assert asked[0].blocks == start and len(asked) <= 17


def test_it_stops_where_no_neighbour_helps():
    costs = search(away_from(512, 256), [xla(512, 256)], SIDES)
    assert blocks(costs) == [(512, 256), (256, 256), (1024, 256), (512, 128), (512, 512)]
    assert list(search(lambda choice: 1.0, [xla(512, 256)], SIDES)) == list(costs)


def test_a_step_changes_a_side_by_a_third_at_least():
    costs = search(lambda choice: 1.0, [xla(900, 300)], SIDES)
    assert blocks(costs) == [(900, 300), (512, 300), (900, 128), (900, 512)]


@pytest.mark.parametrize(
    "sides, reached",
    [
        ((4096, 64), {(256, 64), (128, 64), (512, 64), (1024, 64)}),
        ((200, 700), {(200, 700), (128, 700), (200, 512), (128, 512), (200, 256), (128, 256),
                      (200, 128), (128, 128)}),
    ],
)  # fmt: skip
def test_no_tile_is_larger_than_the_sides(sides, reached):
    for best in ((128, 128), (1024, 1024)):
        start = xla(min(256, sides[0]), sides[1])
        assert set(blocks(search(away_from(*best), [start], sides))) <= reached


def test_every_implementation_is_walked_from_its_own_start():
    def cost(choice):
        best = {"xla": (1024, 1024), "reference": (128, 256)}[choice.impl]
        return away_from(*best)(choice) + (choice.impl == "xla")

    start = xla(1024, 512)
    costs = search(cost, [start, start._replace(impl="reference")], SIDES)
    assert cheapest(costs) == Choice("reference", None, (128, 256))


def test_a_start_that_fails_is_halved_until_it_runs():
    def cost(choice):
        r, c = choice.blocks
        return math.inf if r * c > 256 * 256 else away_from(256, 128)(choice)

    costs = search(cost, [xla(1024, 1024)], SIDES)
    assert blocks(costs)[:3] == [(1024, 1024), (512, 512), (256, 256)]
    assert cheapest(costs) == xla(256, 128)
    nothing = search(lambda choice: math.inf, [xla(1024, 512)], SIDES)
    assert set(nothing.values()) == {math.inf} and (128, 128) in blocks(nothing)


# Tuning a function


def test_calls_are_tuned_in_turn_and_what_fails_is_passed_over(monkeypatch):
    """The second call is tried with the first as it is best by then; it runs in one tile only."""
    x = jnp.ones((300, 4))
    with choices() as made:
        jax.eval_shape(lambda x: two(x), x)
    first, second = made
    assert first.endswith(".tile 300x300 float32[4]") and second.endswith(
        ".other_tile 300x300 float32[4]"
    )
    own = tuple(made[second]["blocks"])
    firsts = []  # while the second is tried

    def seconds(function, args, call, following, repeats):
        if call == first:
            return away_from(256, 256)(xla(*following[first]["blocks"]))
        firsts.append(following[first]["blocks"])
        if following[second]["blocks"] != own:
            raise RuntimeError("no room")
        return 1.0

    monkeypatch.setattr(module, "_seconds", seconds)
    trials = []
    tuned = autotune(two, (x,), tried=trials.append)
    assert list(tuned) == [first, second]
    assert tuned[first] == {"impl": "xla", "comm": None, "blocks": (256, 256)}
    assert tuned[second]["blocks"] == own and set(firsts) == {(256, 256)}
    failed = [trial for trial in trials if trial.error is not None]
    assert failed and {trial.call for trial in failed} == {second}
    assert {str(trial.error) for trial in failed} == {"no room"}
    assert {trial.seconds for trial in failed} == {math.inf}

    monkeypatch.setattr(module, "_seconds", lambda *_: 1 / 0)
    assert autotune(two, (x,)) == {}


def test_on_several_devices_their_ways_to_meet_are_tried_too(monkeypatch):
    """The kernel that carries the ring itself is one of a TPU's."""
    everything = ("reference", "xla", "pallas_tpu")
    monkeypatch.setattr(module, "implementations", lambda: everything[1:])
    monkeypatch.setattr(module, "_seconds", lambda f, args, call, following, repeats: 1.0)
    trials = []
    with jax.set_mesh(jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))):
        autotune(functools.partial(one, tile), (jnp.ones((40, 4)),), tried=trials.append)
    ways = {(trial.choice.impl, trial.choice.comm) for trial in trials}
    kernel = {("pallas_tpu", comm) for comm in ("ring", "gather", "fused")}
    assert ways == {("xla", "ring"), ("xla", "gather")} | kernel


@pytest.mark.long
def test_real_timings_give_choices_that_are_followed():
    """Whatever was fastest: it was tried, it survives JSON, and the engine does it again."""
    x = jnp.ones((140, 4))
    trials = []
    loss = jax.value_and_grad(functools.partial(one, tile))
    tuned = json.loads(json.dumps(autotune(loss, (x,), repeats=1, tried=trials.append)))
    (choice,) = tuned.values()
    assert choice["blocks"] in [list(trial.choice.blocks) for trial in trials]
    assert all(trial.error is None and 0 <= trial.seconds < math.inf for trial in trials)
    with choices(tuned) as made:
        jax.eval_shape(lambda x: one(tile, x), x)
    assert made == tuned


def test_what_the_engine_does_not_follow_fails():
    """A call that names its implementation runs no other: no time is noted under a false name."""

    def named(x):
        asked = {"lse": Reduce("logsumexp", "s", "row")}
        return pair_reduce(tile, x, x, asked, impl="xla")["lse"].sum()

    x = jnp.ones((8, 4))
    with choices() as made:
        jax.eval_shape(lambda x: named(x), x)
    ((call, own),) = made.items()
    assert module._seconds(named, (x,), call, made, 1) >= 0
    with pytest.raises(ValueError, match="the engine ran xla instead of reference"):
        module._seconds(named, (x,), call, {call: {**own, "impl": "reference"}}, 1)


def test_a_function_without_the_engine_has_nothing_to_tune():
    assert autotune(lambda x: x + 1, (jnp.ones(3),)) == {}


def test_the_reference_and_kernels_of_other_devices_are_no_candidates(monkeypatch):
    assert implementations() == ["xla"]
    everything = ("reference", "xla", "pallas_tpu", "pallas_gpu")
    monkeypatch.setattr(module, "get_args", lambda _: everything)
    for backend, kernel in (("tpu", ["pallas_tpu"]), ("gpu", ["pallas_gpu"]), ("cpu", [])):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert implementations() == ["xla", *kernel]
