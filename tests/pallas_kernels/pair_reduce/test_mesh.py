"""One device or eight, whoever moves: the same values and gradients to 1e-12 in float64."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from pallas_kernels.pair_reduce import (
    Reduce,
    Sample,
    SoftmaxMean,
    TopK,
    pair_reduce,
    pair_sum,
    take,
)

INF = math.inf


def mesh_of(**axes):
    """A mesh of the first devices."""
    shape = tuple(axes.values())
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, tuple(axes), (AxisType.Auto,) * len(shape), devices=devices)


def tile(row, col, params, at):
    score = params["scale"] * (row["z"] @ col["z"].T) + col["bias"]
    itself = at.row[:, None] == at.col
    score = jnp.where(itself | (row["label"][:, None] == col["label"]), -INF, score)
    return {"score": score, "step": jnp.floor(score) + 0 * score, "curve": jnp.tanh(score)}


REDUCTIONS = {
    "lse row": Reduce("logsumexp", "score", "row"),
    "lse col": Reduce("logsumexp", "score", "col"),
    "lse all": Reduce("logsumexp", "score", "all"),
    "sum all": Reduce("sum", "curve", "all"),
    "tied": Reduce(TopK(3, ("z",)), "step", "row"),
    "tied all": Reduce(TopK(2, ("z",)), "step", "all"),
    "max col": Reduce("max", "step", "col"),
    "mean": Reduce(SoftmaxMean("z"), "score", "row"),
    "draw": Reduce(Sample(2, jax.random.key(0)), "score", "col"),
}
FEW = {name: REDUCTIONS[name] for name in ("lse row", "lse col", "sum all")}
ASKED = {"every": REDUCTIONS, "few": FEW}


@cache
def inputs(n, m):
    rng = np.random.default_rng(n)
    rows = {"z": rng.normal(size=(n, 4)), "label": rng.integers(0, 9, n)}
    cols = {
        "z": rng.normal(size=(m, 4)),
        "bias": rng.normal(size=m),
        "label": rng.integers(0, 9, m),
    }
    rows["label"][0] = cols["label"][:] = 9  # row 0 pairs with nothing
    cols["label"][2:] = np.arange(2, m) % 9
    return rows, cols, {"scale": np.float64(1.3)}


def loss(z, z_col, bias, scale, rows, cols, reductions, **options):
    stats = pair_reduce(
        tile,
        {**rows, "z": z},
        {**cols, "z": z_col, "bias": bias},
        reductions,
        {"scale": scale},
        **options,
    )
    return combined(stats), stats


def combined(stats):
    """A random combination of what is finite in them."""
    rng = np.random.default_rng(1)
    floats = [x for x in jax.tree.leaves(stats) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(
        jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0) * rng.normal(size=x.shape)) for x in floats
    )


def run(n, m, reductions, argnums=(0, 1, 2, 3), **options):
    """The combination, the statistics, and its gradients, on the mesh of the context."""
    rows, cols, params = inputs(n, m)
    step = jax.value_and_grad(
        partial(loss, rows=rows, cols=cols, reductions=reductions, **options),
        argnums=argnums,
        has_aux=True,
    )
    return jax.device_get(jax.jit(step)(rows["z"], cols["z"], cols["bias"], params["scale"]))


@cache
def on_one_device(n, m, asked="few", groups=None):
    with jax.enable_x64(True):
        return run(n, m, ASKED[asked], groups=groups, blocks=(5, 3), mesh_axes=())


def assert_same(got, want, tolerance=1e-12):
    got, want = jax.tree.leaves_with_path(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for (path, a), b in zip(got, want):
        a, b = np.asarray(a), np.asarray(b)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=str(path))
        a, b = a[finite], b[finite]
        scale = max(1.0, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=str(path))


WIDE, TALL = (16, 24), (24, 16)  # rows move; columns move


@pytest.mark.parametrize(
    "axes, comm, size, asked",
    [
        ({"data": 8}, "ring", WIDE, "every"),
        ({"data": 4}, "gather", TALL, "every"),
        ({"slice": 2, "data": 4}, None, TALL, "every"),
        ({"data": 1}, None, WIDE, "few"),
        ({"data": 2}, "gather", WIDE, "few"),
        ({"data": 4}, "ring", TALL, "few"),
        ({"slice": 2, "data": 4}, "ring", WIDE, "few"),
        ({"slice": 2, "data": 2, "fsdp": 2}, "hierarchical", WIDE, "few"),
        ({"data": 4, "model": 2}, "hierarchical", TALL, "few"),
        ({"fsdp": 2, "model": 2, "data": 2}, None, TALL, "few"),  # in another order than by default
    ],
    ids=str,
)
def test_every_mesh_and_way_of_sending_agrees_with_one_device(axes, comm, size, asked):
    with jax.enable_x64(True), jax.set_mesh(mesh_of(**axes)):
        got = run(*size, ASKED[asked], comm=comm, blocks=(3, 2))
    assert_same(got, on_one_device(*size, asked))


@pytest.mark.parametrize("mesh_axes", [(), "data", ("fsdp", "slice")], ids=str)
def test_sides_are_split_over_the_axes_that_are_named(mesh_axes):
    with jax.enable_x64(True), jax.set_mesh(mesh_of(slice=2, data=2, fsdp=2)):
        got = run(*TALL, FEW, mesh_axes=mesh_axes, blocks=(3, 2))
    assert_same(got, on_one_device(*TALL))


@pytest.mark.parametrize("locked, size", [(0, WIDE), (1, TALL)], ids=str)
def test_a_locked_side_stays_or_moves_without_a_gradient(locked, size):
    with jax.enable_x64(True), jax.set_mesh(mesh_of(data=4)):
        got = run(*size, FEW, argnums=1 - locked, blocks=(3, 2))
    value, gradients = on_one_device(*size)
    assert_same(got, (value, gradients[1 - locked]))


@pytest.mark.parametrize(
    "groups, axes, comm",
    [
        (2, {"data": 8}, None),  # a group is some devices
        (8, {"data": 8}, None),  # a group is a device
        (3, {"data": 8}, None),  # borders lie inside devices
        (3, {"data": 4}, "gather"),
        (6, {"slice": 2, "data": 4}, "hierarchical"),
        (24, {"data": 4}, None),  # many groups in a device
    ],
    ids=str,
)
def test_groups_are_the_same_on_any_mesh(groups, axes, comm):
    n, m = (48, 24)
    with jax.enable_x64(True), jax.set_mesh(mesh_of(**axes)):
        got = run(n, m, FEW, groups=groups, comm=comm, blocks=(3, 2))
    assert_same(got, on_one_device(n, m, groups=groups))


def test_groups_that_are_devices_send_nothing():
    def statistics(x, y):
        def products(row, col, params, at):
            return {"s": row @ col.T}

        return pair_reduce(products, x, y, {"s": Reduce("sum", "s", "row")}, groups=8)["s"]

    with jax.set_mesh(mesh_of(data=8)):
        text = jax.jit(statistics).lower(jnp.ones((8, 2)), jnp.ones((8, 2))).as_text()
    assert "collective_permute" not in text


# Inside a caller's shard_map.

PER_DEVICE = {
    "lse row": Reduce("logsumexp", "score", "row"),
    "lse col": Reduce("logsumexp", "score", "col"),
    "lse all": Reduce("logsumexp", "score", "all"),
    "sum all": Reduce("sum", "curve", "all"),
    "top": Reduce(TopK(2, ("z",)), "score", "row"),
    "top all": Reduce(TopK(2, ("z",)), "score", "all"),
}


def parts(z, other, scale, index, mesh_axes):
    """What a device has to itself, and what all have in common."""

    def products(row, col, params, at):
        score = params * (row @ col["z"].T)
        return {"score": score, "curve": jnp.tanh(score)}

    stats = pair_reduce(
        products, z, {"z": other}, PER_DEVICE, scale, mesh_axes=mesh_axes, blocks=(2, 1)
    )
    total, _ = pair_sum(
        products, z, {"z": other}, {"curve": 2.0}, scale, mesh_axes=mesh_axes, blocks=(1, 2)
    )
    taken = take(other, index, mesh_axes=mesh_axes)
    own = (
        stats["lse row"].sum()
        + 2 * stats["lse col"].sum()
        + (stats["top"].value * stats["top"].carry["z"].sum(axis=2)).sum()
        + (taken**2).sum()
    )
    best = stats["top all"]
    common = 3 * stats["lse all"] + stats["sum all"] + best.value.sum() + total
    return own, common + (best.carry["z"] ** 3).sum()


@pytest.fixture(scope="module")
def shared():
    """Arrays, and what one device makes of them."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(16, 3)), rng.normal(size=(8, 3)), np.float64(0.8)
    index = rng.integers(-1, 8, (16, 2))
    index[:4] = 3
    with jax.enable_x64(True):
        want = jax.jit(
            jax.value_and_grad(
                lambda *a: sum(parts(*a, index=index, mesh_axes=())), argnums=(0, 1, 2)
            )
        )(*arrays)
    return arrays, index, want


SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()
SPECS = {"in_specs": (SPLIT, SPLIT, WHOLE, SPLIT)}


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_taken_outside_of_a_callers_shard_map(shared, check_vma):
    arrays, index, want = shared

    def here(*args):
        own, common = parts(*args, mesh_axes="data")
        return jax.lax.psum(own, "data") + common

    with jax.enable_x64(True), jax.set_mesh(mesh_of(data=4)):
        whole = jax.shard_map(here, **SPECS, out_specs=WHOLE, check_vma=check_vma)
        got = jax.jit(jax.value_and_grad(whole, argnums=(0, 1, 2)))(*arrays, index)
    assert_same(got, want)


def test_gradients_taken_inside_of_a_checked_shard_map_are_whole(shared):
    arrays, index, want = shared

    def here(*args):
        own, common = parts(*args, mesh_axes="data")
        return jax.lax.psum(own, "data") + common

    with jax.enable_x64(True), jax.set_mesh(mesh_of(data=4)):
        inside = jax.shard_map(
            jax.value_and_grad(here, argnums=(0, 1, 2)),
            **SPECS,
            out_specs=(WHOLE, (SPLIT, SPLIT, WHOLE)),
        )
        got = jax.jit(inside)(*arrays, index)
    assert_same(got, want)


def test_gradients_taken_inside_of_an_unchecked_shard_map_are_the_devices_share(shared):
    """Each device differentiates its own share of the loss, and adds up what all have."""
    arrays, index, want = shared

    def here(*args):
        def share(*args):
            own, common = parts(*args, index=index_here, mesh_axes="data")
            return own + common / 4

        *args, index_here = args
        value, (d_z, d_other, d_scale) = jax.value_and_grad(share, argnums=(0, 1, 2))(*args)
        return jax.lax.psum(value, "data"), (d_z, d_other, jax.lax.psum(d_scale, "data"))

    with jax.enable_x64(True), jax.set_mesh(mesh_of(data=4)):
        inside = jax.shard_map(
            here, **SPECS, out_specs=(WHOLE, (SPLIT, SPLIT, WHOLE)), check_vma=False
        )
        got = jax.jit(inside)(*arrays, index)
    assert_same(got, want)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("manual", [("slice",), ("slice", "data")], ids=str)
def test_sides_may_be_a_devices_own_or_split_over_the_axes_that_are_left(manual, check_vma):
    """Two slices, each with a loss of its own; a slice's pairs are on two devices or on both."""
    rng = np.random.default_rng(0)
    x, y, scale = rng.normal(size=(8, 3)), rng.normal(size=(4, 3)), np.float64(0.7)

    def products(row, col, params, at):
        return {"score": params * (row @ col.T)}

    def own(x, y, scale, **options):
        asked = {per: Reduce("logsumexp", "score", per) for per in ("row", "all")}
        stats = pair_reduce(products, x, y, asked, scale, blocks=(1, 1), **options)
        return (stats["row"] ** 2).sum() + stats["all"]

    def one(x, y, scale):
        return sum(own(x[4 * i :][:4], y[2 * i :][:2], scale, mesh_axes=()) for i in range(2))

    with jax.enable_x64(True):
        want = jax.jit(jax.value_and_grad(one, argnums=(0, 1, 2)))(x, y, scale)
        with jax.set_mesh(mesh_of(slice=2, data=2)):
            split = PartitionSpec("slice")
            both = jax.shard_map(
                lambda *args: jax.lax.psum(own(*args), "slice"),
                in_specs=(split, split, WHOLE),
                out_specs=WHOLE,
                axis_names=set(manual),
                check_vma=check_vma,
            )
            got = jax.jit(jax.value_and_grad(both, argnums=(0, 1, 2)))(x, y, scale)
    assert_same(got, want)


def test_take_is_indexing_and_its_gradient_a_scatter_add():
    rng = np.random.default_rng(0)
    index = rng.integers(-1, 16, (8, 3))
    index[:5] = 11
    tree = {"z": rng.normal(size=(16, 2, 2)), "half": rng.normal(size=16).astype(np.float16)}
    tree["label"] = np.arange(16)
    weight = rng.normal(size=(8, 3, 2, 2))

    def value(z, half, index, **options):
        taken = take({**tree, "z": z, "half": half}, index, **options)
        return (weight * taken["z"]).sum() + taken["half"].astype(np.float64).sum(), taken

    def indexed(z, half):
        there = (index >= 0)[..., None, None]
        return (weight * jnp.where(there, z[index], 0)).sum() + jnp.where(
            there[..., 0, 0], half.astype(np.float64)[index], 0
        ).sum()

    want_label = np.where(index >= 0, np.arange(16)[index], 0)
    with jax.enable_x64(True):
        want = jax.value_and_grad(indexed, (0, 1))(tree["z"], tree["half"])
        for axes in ({"data": 1}, {"data": 4}, {"slice": 2, "data": 4}, {"fsdp": 4, "data": 2}):
            with jax.set_mesh(mesh_of(**axes)):
                step = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
                (total, taken), gradients = step(tree["z"], tree["half"], index)
            assert_same((total, gradients), want)
            np.testing.assert_array_equal(taken["label"], want_label)
            assert gradients[1].dtype == np.float16
    assert take(np.ones((0, 2)), np.array([-1])).tolist() == [[0, 0]]
