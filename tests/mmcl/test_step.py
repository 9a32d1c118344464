"""One training step against the same step by hand: loss and finite differences in NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcl.ema import ema_update
from mmcl.models.embedding import Embedding
from mmcl.models.towers import Towers
from mmcl.objectives import infonce
from mmcl.objectives.term import Result, Term
from mmcl.state import TrainState
from mmcl.step import make_train_step

B = 4


class Linear(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, train):
        kernel = self.param("kernel", nn.initializers.normal(1.0), (inputs["value"].shape[1], 2))
        return Embedding(inputs["value"] @ kernel)


TOWERS = Towers({"image": Linear(), "text": Linear()})


def linear_batch():
    rng = np.random.default_rng(0)
    return {
        "image": {"value": rng.normal(size=(B, 3))},
        "text": {"value": rng.normal(size=(B, 5))},
        "present": {m: np.ones(B, bool) for m in ("image", "text")},
    }


def linear_params():
    rng = np.random.default_rng(1)
    return {
        "image": {"kernel": rng.normal(size=(3, 2))},
        "text": {"kernel": rng.normal(size=(5, 2))},
        "objective": {"log_scale": np.float64(0.5)},
    }


def state_of(params, optimizer, *, step=0, objective=None, ema=None):
    key = jax.random.key(7)
    return TrainState(jnp.int32(step), params, optimizer.init(params), objective, ema, key)


def nothing_frozen(params):
    return jax.tree.map(lambda _: False, params)


def compiled(params, *, optimizer, towers=TOWERS, objective=None, frozen=None, ema=None, start=0):
    return jax.jit(
        make_train_step(
            towers,
            objective or infonce.Objective(),
            optimizer,
            lambda step: 0.1 * (step + 1),
            frozen=frozen or nothing_frozen(params),
            ema=ema,
            start=start,
        )
    )


def literal_loss(params, batch):
    z = {m: batch[m]["value"] @ params[m]["kernel"] for m in ("image", "text")}
    z = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in z.items()}
    logits = np.exp(params["objective"]["log_scale"]) * z["image"] @ z["text"].T
    log_normaliser = [np.log(np.exp(logits).sum(axis=axis)) for axis in (0, 1)]
    return (sum(log_normaliser) / 2 - np.diag(logits)).mean()


def literal_gradient(params, batch, h=1e-6):
    leaves, treedef = jax.tree.flatten(params)

    def shifted(k, index, by):
        moved = [np.array(leaf) for leaf in leaves]
        moved[k][index] += by
        return literal_loss(jax.tree.unflatten(treedef, moved), batch)

    gradients = [np.zeros(np.shape(leaf)) for leaf in leaves]
    for k, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            gradient[index] = (shifted(k, index, h) - shifted(k, index, -h)) / (2 * h)
    return jax.tree.unflatten(treedef, gradients)


def test_one_step_of_gradient_descent_by_hand():
    params, batch, sgd = linear_params(), linear_batch(), optax.identity()
    loss, gradient = literal_loss(params, batch), literal_gradient(params, batch)
    with jax.enable_x64(True):
        step = compiled(params, optimizer=sgd, ema=0.9, start=5)
        before = state_of(params, sgd, step=7, ema=jax.tree.map(np.zeros_like, params))
        after, metrics = step(before, batch)
        average = ema_update(before.ema, after.params, 0.9, before.step)
        lr = 0.1 * (7 - 5 + 1)
        got, metrics, average = jax.device_get((after._replace(key=None), metrics, average))
        np.testing.assert_array_equal(
            jax.random.key_data(after.key), jax.random.key_data(before.key)
        )
    assert got.step == 8 and got.objective is None
    for p, g, new in zip(*map(jax.tree.leaves, (params, gradient, got.params))):
        np.testing.assert_allclose(new, p - lr * g, rtol=1e-8, atol=1e-9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got.ema, average)
    norms = {
        f"grad_norm/{k}": np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
        for k, g in gradient.items()
    }
    want = {"loss": loss, "image_text": loss, "logit_scale": np.exp(0.5), "lr": lr, **norms}
    assert set(metrics) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-7, err_msg=name)


def test_the_optimizer_sees_gradient_parameters_and_its_own_state():
    params, batch = linear_params(), linear_batch()
    optimizer = optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.5))
    with jax.enable_x64(True):
        state = state_of(params, optimizer)
        step = compiled(params, optimizer=optimizer)
        for _ in range(3):
            state, _ = step(state, batch)
        got = jax.device_get(state.params)
    momentum = jax.tree.map(np.zeros_like, params)
    for lr in (0.1, 0.2, 0.3):
        gradient = literal_gradient(params, batch)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        direction = jax.tree.map(lambda m, p: m + 0.5 * p, momentum, params)
        params = jax.tree.map(lambda p, d, lr=lr: p - lr * d, params, direction)
    for new, want in zip(jax.tree.leaves(got), jax.tree.leaves(params)):
        np.testing.assert_allclose(new, want, rtol=1e-7, atol=1e-8)


class Drawn:
    """Its loss is a random number, its state counts the calls."""

    def __call__(self, params, state, embeddings, batch, key):
        value = jax.random.uniform(key, (B,)) + 0 * params["unused"]
        return Result({"drawn": Term(value, jnp.ones(B))}, state + 1, {})


def test_every_step_draws_its_own_numbers_and_the_same_ones_again():
    params = {**linear_params(), "objective": {"unused": np.float32(0)}}
    params = jax.tree.map(np.float32, params)
    batch = jax.tree.map(lambda x: x.astype("f4") if x.dtype == np.float64 else x, linear_batch())
    sgd = optax.identity()
    step = compiled(params, optimizer=sgd, objective=Drawn())
    first = state_of(params, sgd, objective=jnp.int32(0))
    second, one = step(first, batch)
    third, two = step(second, batch)
    assert one["drawn"] == step(first, batch)[1]["drawn"] and one["drawn"] != two["drawn"]
    assert (second.objective, third.objective) == (1, 2)
    assert step(first._replace(key=jax.random.key(8)), batch)[1]["drawn"] != one["drawn"]


def test_two_terms_add_up():
    class Twice:
        def __call__(self, params, state, embeddings, batch, key):
            terms = {
                "a": Term(params["x"] * jnp.ones(B), jnp.ones(B)),
                "b": Term(jnp.arange(4.0), jnp.float32([0, 0, 1, 1])),
            }
            return Result(terms, None, {})

    params = {**jax.tree.map(np.float32, linear_params()), "objective": {"x": np.float32(3)}}
    sgd = optax.identity()
    batch = jax.tree.map(lambda x: x.astype("f4") if x.dtype == np.float64 else x, linear_batch())
    after, metrics = compiled(params, optimizer=sgd, objective=Twice())(
        state_of(params, sgd), batch
    )
    assert (metrics["a"], metrics["b"], metrics["loss"]) == (3, 2.5, 5.5)
    np.testing.assert_allclose(after.params["objective"]["x"], 3 - 0.1, rtol=1e-6)


class Layers(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, train):
        x = inputs["value"]
        for i in range(3):
            x = nn.tanh(nn.Dense(32, name=f"layer_{i}")(x))
        return Embedding(x)


def test_the_terms_of_a_mixture_are_also_averaged_by_source():
    """Source 2 has no weight in the batch; averages change no gradient."""

    class Weighted:
        def __call__(self, params, state, embeddings, batch, key):
            value = params["x"] * jnp.float32([1, 2, 4, jnp.nan])
            return Result({"a": Term(value, jnp.float32([1, 3, 2, 0]))}, None, {})

    params = {**linear_params(), "objective": {"x": np.float64(5.0)}}
    state = state_of(params, optax.sgd(1.0))
    batch = linear_batch() | {"source": np.int32([0, 0, 1, 2])}
    plain, mixed = (
        jax.jit(
            make_train_step(
                TOWERS,
                Weighted(),
                optax.sgd(1.0),
                lambda step: 1.0,
                frozen=nothing_frozen(params),
                ema=None,
                start=0,
                sources=sources,
            )
        )(state, batch)
        for sources in ((), ("x", "y", "z"))
    )
    found = {k: float(v) for k, v in mixed[1].items() if k.startswith("by_source/")}
    assert found.keys() == {"by_source/a/x", "by_source/a/y", "by_source/a/z"}
    np.testing.assert_allclose(found["by_source/a/x"], 5 * (1 * 1 + 3 * 2) / 4)
    np.testing.assert_allclose(found["by_source/a/y"], 5 * 4)
    assert np.isnan(found["by_source/a/z"])
    assert not any(key.startswith("by_source/") for key in plain[1])
    for a, b in zip(jax.tree.leaves(plain[0].params), jax.tree.leaves(mixed[0].params)):
        np.testing.assert_array_equal(a, b)


def test_what_is_frozen_keeps_its_bits_and_has_no_backward():
    towers, sgd, rng = Towers({"image": Layers(), "text": Layers()}), optax.identity(), np.random
    batch = {m: {"value": rng.default_rng(0).random((64, 32), np.float32)} for m in towers.modules}
    batch["present"] = {m: np.ones(64, bool) for m in towers.modules}
    params = towers.init(jax.random.key(0), batch)
    params["objective"] = infonce.Objective().init(jax.random.key(1))
    nothing = nothing_frozen(params)
    tower_and_layer = {
        **nothing,
        "image": jax.tree.map(lambda _: True, params["image"]),
        "text": {**nothing["text"], "layer_1": {"kernel": True, "bias": False}},
    }

    def run(frozen):
        state = state_of(params, sgd)
        step = compiled(params, optimizer=sgd, towers=towers, frozen=frozen)
        executable = step.lower(state, batch).compile()
        after, metrics = executable(state, batch)
        return after.params, metrics, executable.cost_analysis()["flops"]

    free, _, free_flops = run(nothing)
    locked, metrics, locked_flops = run(tower_and_layer)
    assert metrics["grad_norm/image"] == 0
    named = jax.tree_util.tree_leaves_with_path
    for (path, new), (_, other), (_, old), (_, stays) in zip(
        *map(named, (locked, free, params, tower_and_layer))
    ):
        assert np.array_equal(new, old) == stays and not np.array_equal(other, old), path
        if not stays:
            np.testing.assert_allclose(new, other, rtol=1e-5, atol=1e-7)

    # Forward, the tower is 3 products; backward 3 for its weights and 2 for what lies between.
    product = 2 * 64 * 32 * 32
    assert free_flops - locked_flops > (3 + 2) * product + product
