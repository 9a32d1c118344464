"""What is wrong with a call is said by name, when it is traced. (Wrong trees, ops, terms and
captured arrays: test_reference.py.)"""

from functools import partial

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

X, Y = np.ones((6, 2), np.float32), np.ones((8, 2), np.float32)
COLS = {"z": Y, "label": np.arange(8), "deep": {"z": Y}}
KEY = jax.random.key(0)


def tile(row, col, params, at):
    return {"s": row @ col["z"].T}


def traced(function, *args, **options):
    """Traces it with abstract arrays: nothing can run."""
    return jax.eval_shape(lambda *a: function(tile, *a, **options), *args)


def reduced(op="sum", per="row", term="s", cols=COLS, **options):
    return jax.eval_shape(
        lambda x, y: pair_reduce(tile, x, y, {"a": Reduce(op, term, per)}, **options), X, cols
    )


@pytest.mark.parametrize(
    "op, per, error, says",
    [
        (TopK(0), "row", ValueError, r"\['a'\]: k=0 should be 1 or more"),
        (Sample(-1, KEY), "col", ValueError, r"\['a'\]: k=-1 should be 1 or more"),
        (sum, "row", ValueError, r"\['a'\]: unknown op <built-in function sum>.*SoftmaxMean"),
        (TopK(1, ("age",)), "row", ValueError, r"\['a'\]: there is no leaf 'age' in cols"),
        (TopK(1, ("z",)), "col", ValueError, r"\['a'\]: there is no leaf 'z' in rows"),
        (Sample(1, KEY, ("deep.y",)), "row", ValueError, r"no leaf 'deep.y' in cols"),
        (TopK(1, ("deep",)), "row", ValueError, r"no leaf 'deep' in cols"),
        (SoftmaxMean("w"), "row", ValueError, r"\['a'\]: there is no leaf 'w' in cols"),
        (SoftmaxMean("z"), "all", ValueError, r"\['a'\]: .*must be a term of the tile"),
        (SoftmaxMean("label"), "row", TypeError, r"\['a'\]: 'label' is int.*, not a float"),
    ],
)
def test_a_wrong_reduction_is_named(op, per, error, says):
    with pytest.raises(error, match=says):
        reduced(op, per)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"comm": "tree"}, "comm: unknown 'tree'.*'ring'"),
        ({"impl": "pallas_moon"}, "impl: unknown implementation 'pallas_moon'.*'xla'"),
        ({"blocks": (0, 4)}, r"blocks: \(0, 4\) should be two whole numbers of 1 or more"),
        ({"blocks": (2.0, 4)}, r"blocks: .* should be two whole numbers"),
        ({"blocks": (4,)}, r"blocks: \(4,\) should be two sizes"),
        ({"blocks": 4}, "blocks: 4 should be two sizes"),
        ({"groups": 4}, "groups: 6 rows do not fall into 4 equal groups"),
        ({"groups": 3}, "groups: 8 cols do not fall into 3 equal groups"),
        ({"groups": 0}, "groups: .* do not fall into 0"),
        ({"mesh_axes": "data"}, "no axis 'data'; there is no mesh"),
    ],
)
def test_a_wrong_option_is_named(options, says):
    with pytest.raises(ValueError, match=says):
        reduced(**options)
    with pytest.raises(ValueError, match=says):
        traced(pair_sum, X, COLS, {"s": 1.0}, **options)


def test_a_tile_that_returns_no_dict_and_a_sum_of_nothing_are_refused():
    asked = {"a": Reduce("sum", "s", "row")}
    with pytest.raises(TypeError, match="tile: returns a .*, not a dict of terms"):
        pair_reduce(lambda row, col, params, at: row @ col.T, X, Y, asked)
    with pytest.raises(ValueError, match="coefficients: names no term"):
        traced(pair_sum, X, COLS, {})
    with pytest.raises(ValueError, match="the tile makes no 't'"):
        traced(pair_sum, X, COLS, {"t": 1.0})


def mesh_of(kind=AxisType.Auto, **axes):
    size = int(np.prod(list(axes.values())))
    return jax.make_mesh(
        tuple(axes.values()), tuple(axes), (kind,) * len(axes), devices=jax.devices()[:size]
    )


def test_what_does_not_fit_the_mesh_is_named():
    with jax.set_mesh(mesh_of(data=4)):
        with pytest.raises(ValueError, match="no axis 'model'; there is only .*'data'"):
            reduced(mesh_axes="model")
        with pytest.raises(ValueError, match=r"\('data', 'data'\) name an axis twice"):
            reduced(mesh_axes=("data", "data"))
        with pytest.raises(ValueError, match="rows: 6 do not divide over the 4 devices.*pad them"):
            reduced()
        reduced(mesh_axes=())
        with pytest.raises(ValueError, match="index: 6 do not divide over the 4 devices"):
            take(Y, np.arange(6))
    with jax.set_mesh(mesh_of(data=2)):
        reduced()
    with jax.set_mesh(mesh_of(AxisType.Explicit, data=2)):
        with pytest.raises(ValueError, match="'data' is an Explicit axis; make the mesh .* Auto"):
            reduced()
        reduced(mesh_axes=())


def test_axes_of_a_shard_map_are_not_mixed_with_others_and_take_no_reference():
    def inside(x, **options):
        stats = pair_reduce(tile, x, {"z": x}, {"a": Reduce("sum", "s", "row")}, **options)
        return stats["a"]

    def within(manual, **options):
        spec = PartitionSpec("slice")
        jax.eval_shape(
            jax.shard_map(
                partial(inside, **options), in_specs=spec, out_specs=spec, axis_names=manual
            ),
            Y,
        )

    with jax.set_mesh(mesh_of(slice=2, data=2)):
        with pytest.raises(ValueError, match="some are inside a shard_map and some are not"):
            within({"slice"}, mesh_axes=("slice", "data"))
        with pytest.raises(ValueError, match="the reference does not run inside a shard_map"):
            within({"slice", "data"}, mesh_axes="slice", impl="reference")
        with pytest.raises(ValueError, match="groups: 8 rows do not fall into 3"):
            within({"slice", "data"}, mesh_axes="slice", groups=3)
        within({"slice", "data"}, mesh_axes="slice", groups=4)


@pytest.mark.parametrize(
    "tree, index, error, says",
    [
        (Y, np.ones(3), TypeError, "index: is float.*, not an integer"),
        (Y, 3, ValueError, "index: a scalar"),
        ({"z": Y, "t": 0.5}, np.arange(3), ValueError, r"tree\['t'\]: a scalar"),
        ({"z": Y, "x": X}, np.arange(3), ValueError, "tree: leading sizes differ"),
    ],
)
def test_what_cannot_be_taken_is_named(tree, index, error, says):
    with pytest.raises(error, match=says):
        take(tree, index)


# Derivatives: once, in reverse.


def lse(x, blocks=(4, 3)):
    def tile(row, col, params, at):
        return {"s": row @ col.T}

    asked = {per: Reduce("logsumexp", "s", per) for per in ("row", "all")}
    stats = pair_reduce(tile, x, jnp.asarray(Y), asked, blocks=blocks)
    return stats["row"].sum() + stats["all"]


def one_pass(x, blocks=(4, 3)):
    def tile(row, col, params, at):
        return {"s": jnp.tanh(row @ col.T)}

    return pair_sum(tile, x, jnp.asarray(Y), {"s": 1.0}, blocks=blocks)[0]


@pytest.mark.parametrize("loss", [lse, one_pass])
@pytest.mark.parametrize(
    "twice",
    [
        lambda f: jax.grad(lambda x: jax.grad(f)(x).sum()),
        lambda f: jax.jit(jax.grad(lambda x: jax.jit(jax.grad(f))(x).sum())),
        lambda f: jax.hessian(f),
        lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x,)),
        lambda f: jax.grad(lambda x: jax.vjp(f, x)[0]),
    ],
    ids=["grad of grad", "compiled", "hessian", "forward over reverse", "grad of a vjp's value"],
)
def test_a_second_derivative_is_refused(loss, twice):
    with pytest.raises(TypeError, match="pair_reduce: it can be differentiated once, in reverse"):
        jax.eval_shape(twice(loss), X)


@pytest.mark.parametrize("loss", [lse, one_pass])
@pytest.mark.parametrize("forward", [jax.jacfwd, lambda f: lambda x: jax.jvp(f, (x,), (x,))])
def test_forward_mode_is_refused(loss, forward):
    with pytest.raises(TypeError, match="forward-mode"):
        forward(loss)(X)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jit(forward(loss))(X)


@pytest.mark.parametrize("loss", [lse, one_pass])
def test_a_gradient_at_a_point_that_is_held_fixed_may_enter_another_loss(loss):
    def outer(x):
        direction = jax.grad(loss)(jax.lax.stop_gradient(x))
        return (direction * x).sum()

    np.testing.assert_allclose(jax.grad(outer)(X), jax.grad(loss)(X), rtol=1e-5)


def test_vmap_is_a_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 7, 2))
    label = rng.integers(0, 2, (3, 7))
    index = rng.integers(-1, 7, (3, 4))

    def everything(x, y, label, index, scale):
        def tile(row, col, scale, at):
            score = scale * (row @ col["z"].T)
            return {"s": jnp.where(col["label"] == 1, score, -jnp.inf), "t": jnp.tanh(score)}

        asked = {
            "row": Reduce("logsumexp", "s", "row"),
            "col": Reduce("max", "s", "col"),
            "all": Reduce("sum", "t", "all"),
            "mean": Reduce(SoftmaxMean("z"), "s", "row"),
            "top": Reduce(TopK(2, ("z",)), "s", "row"),
        }
        cols = {"z": y, "label": label}
        stats = pair_reduce(tile, x, cols, asked, scale, blocks=(2, 3))
        total, by_row = pair_sum(tile, x, cols, {"t": 0.5}, scale, blocks=(2, 3))
        return stats, total, by_row, take(y, index)

    def loss(x, y, label, index, scale):
        made = everything(x, y, label, index, scale)
        floats = [a for a in jax.tree.leaves(made) if jnp.issubdtype(a.dtype, jnp.floating)]
        return sum((jnp.where(jnp.isfinite(a), a, 0) ** 2).sum() for a in floats), made

    step = jax.value_and_grad(loss, (0, 1, 4), has_aux=True)
    with jax.enable_x64(True):
        scale = np.float64(0.8)
        got = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, 0, None)))(x, y, label, index, scale)
        one = jax.jit(step)
        for i in range(3):
            want = one(x[i], y[i], label[i], index[i], scale)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
                np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)
