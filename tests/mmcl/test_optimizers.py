"""Every optimiser against a NumPy transcription of its paper in float64, an array at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl import optimizers

SHAPES = {
    "image/patches/kernel": (12, 8),
    "image/patches/bias": (8,),
    "image/positions": (5, 8),
    "image/encoder/blocks_0/qkv/kernel": (8, 24),
    "image/encoder/blocks_0/down/kernel": (16, 8),
    "image/encoder/blocks_1/qkv/kernel": (8, 24),
    "image/encoder/blocks_1/norm_1/scale": (8,),
    "image/encoder/norm/scale": (8,),
    "image/projection/kernel": (8, 6),
    "text/vocabulary/embedding": (10, 8),
    "text/encoder/blocks_0/up/kernel": (8, 8),
    "text/encoder/blocks_0/up/bias": (8,),
    "text/projection/kernel": (8, 6),
    "objective/logit_scale": (),
}
KERNELS = {name for name in SHAPES if name.endswith("/kernel")}
LEARNING_RATES = (0.1, 0.3, 0.02)


def nested(flat):
    """{"a/b": 1} -> {"a": {"b": 1}}"""
    tree = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def flat(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def drawn(seed, power=1):
    """Normal numbers to an odd power, for heavier tails."""
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=shape) ** power).astype("f4") for name, shape in SHAPES.items()}


PARAMS = drawn(0)
GRADIENTS = [drawn(seed, power=3) for seed in (1, 2, 3)]


def trained(gradients=GRADIENTS, **section):
    """Parameters after one step for each gradient."""
    params = nested({name: jnp.asarray(p) for name, p in PARAMS.items()})
    optimizer = optimizers.make(jax.eval_shape(lambda: params), **section)

    @jax.jit
    def step(params, state, gradient, lr):
        updates, state = optimizer.update(gradient, state, params)
        return jax.tree.map(lambda p, u: p - lr * u, params, updates), state

    state = optimizer.init(params)
    for gradient, lr in zip(gradients, LEARNING_RATES):
        params, state = step(params, state, nested(gradient), lr)
    return flat(params)


def update(values=PARAMS, **section):
    """The update for zero gradients under plain gradient descent: what weight decay alone does."""
    params = nested({name: jnp.asarray(v) for name, v in values.items()})
    optimizer = optimizers.make(params, name="sgd", momentum=0.0, **section)
    zero = jax.tree.map(jnp.zeros_like, params)
    return flat(optimizer.update(zero, optimizer.init(params), params)[0])


# The papers, literally. Each takes one array's gradient g, value p, memory s and weight decay at
# the step t = 1, 2, ..., and returns the direction with the weight decay in it.


def adam(g, s, t, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adamw(name, g, p, s, t, decay, **hyper):
    return adam(g, s, t, **hyper) + decay * p


def lion(name, g, p, s, t, decay, b1=0.9, b2=0.99):
    m = s.get("m", 0)
    s["m"] = b2 * m + (1 - b2) * g
    return np.sign(b1 * m + (1 - b1) * g) + decay * p


def adafactor(
    name, g, p, s, t, decay, b1=0.9, b2_cap=0.999, exponent=0.8, clip_rms=1.0, min_factored=32
):
    b2 = min(1 - t**-exponent, b2_cap)
    square = g**2 + 1e-30
    if g.ndim == 2 and min(g.shape) >= min_factored:
        rows = s["rows"] = b2 * s.get("rows", 0) + (1 - b2) * square.sum(axis=1)
        cols = s["cols"] = b2 * s.get("cols", 0) + (1 - b2) * square.sum(axis=0)
        v = np.outer(rows, cols) / rows.sum()
    else:
        v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * square
    u = g / np.sqrt(v)
    u = u / max(1, np.sqrt(np.mean(u**2)) / clip_rms)
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * u
    return m + decay * p


def muon(name, g, p, s, t, decay, beta=0.95, ns_steps=5, b1=0.9, b2=0.999, eps=1e-8):
    if "blocks_" not in name or not name.endswith("kernel"):
        return adam(g, s, t, b1, b2, eps) + decay * p
    m = s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    x = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
    x = x / np.linalg.norm(x)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return 0.2 * np.sqrt(max(g.shape)) * x + decay * p


def lamb(name, g, p, s, t, decay, b1=0.9, b2=0.999, eps=1e-6):
    r = adam(g, s, t, b1, b2, eps) + decay * p
    return r * np.linalg.norm(p) / np.linalg.norm(r) if g.ndim == 2 else r


def sgd(name, g, p, s, t, decay, momentum=0.9, nesterov=False):
    m = s["m"] = momentum * s.get("m", 0) + g
    return (g + momentum * m if nesterov else m) + decay * p


METHODS = {
    "adamw": (adamw, {}),
    "adamw-set": (adamw, dict(b1=0.8, b2=0.95, eps=1e-3)),
    "lion": (lion, {}),
    "lion-set": (lion, dict(b1=0.6, b2=0.7)),
    "adafactor": (adafactor, {}),
    "adafactor-factored": (adafactor, dict(min_factored=6, clip_rms=0.7, b2_cap=0.5)),
    "adafactor-no-momentum": (adafactor, dict(min_factored=6, b1=0.0, exponent=0.5)),
    "muon": (muon, {}),
    "muon-set": (muon, dict(beta=0.8, ns_steps=3, b1=0.8, b2=0.95, eps=1e-5)),
    "lamb": (lamb, {}),
    "lamb-set": (lamb, dict(b1=0.8, b2=0.95, eps=1e-3)),
    "sgd": (sgd, {}),
    "sgd-nesterov": (sgd, dict(momentum=0.7, nesterov=True)),
    "sgd-plain": (sgd, dict(momentum=0.0)),
}


FROZEN = {"image/projection/kernel", "text/vocabulary/embedding"}


def transcribed(method, multiplier, weight_decay, clip_norm):
    direction, hyper = METHODS[method]
    params = {name: p.astype("f8") for name, p in PARAMS.items()}
    memory = {name: {} for name in params}
    for t, (gradient, lr) in enumerate(zip(GRADIENTS, LEARNING_RATES), start=1):
        gradient = {name: g.astype("f8") for name, g in gradient.items() if name not in FROZEN}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, g in gradient.items():
            p, s = params[name], memory[name]
            decay = weight_decay if name in KERNELS else 0
            u = direction(name, g * min(1, clip_norm / norm), p, s, t, decay, **hyper)
            params[name] = p - lr * multiplier(name) * u
    return params


@pytest.mark.parametrize("method", METHODS)
def test_three_steps_are_those_of_the_paper(method):
    direction, hyper = METHODS[method]
    got = trained(
        name=direction.__name__,
        weight_decay=0.2,
        freeze=("^image/projection/", "vocabulary"),
        rates=(("^text/", 0.25), ("logit_scale$", 3)),
        clip_norm=10.0,
        **hyper,
    )

    def multiplier(name):
        return 0.25 if name.startswith("text/") else 3 if name.endswith("logit_scale") else 1

    want = transcribed(method, multiplier, weight_decay=0.2, clip_norm=10.0)
    for name in SHAPES:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for name in FROZEN:
        np.testing.assert_array_equal(got[name], PARAMS[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_state_with_a_frozen_tower_is_the_state_without_it(method):
    direction, hyper = METHODS[method]

    def state(names, **section):
        params = nested({name: jnp.asarray(PARAMS[name]) for name in names})
        optimizer = optimizers.make(params, name=direction.__name__, **hyper, **section)
        return [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, params))]

    rest = [name for name in SHAPES if not name.startswith("text/")]
    assert state(SHAPES, freeze=("^text/",)) == state(rest)


def test_adamw_keeps_two_numbers_a_trained_parameter():
    params = nested(PARAMS)
    optimizer = optimizers.make(params, name="adamw", freeze="kernel$")  # one needs no tuple
    numbers = sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(params)))
    assert numbers == 1 + 2 * sum(PARAMS[name].size for name in SHAPES.keys() - KERNELS)


def test_frozen_is_what_any_of_the_regexes_finds():
    params = nested(PARAMS)
    got = flat(optimizers.frozen(params, ["^image/encoder/blocks_0/", "scale$"]))
    assert {name for name, is_frozen in got.items() if is_frozen} == {
        "image/encoder/blocks_0/qkv/kernel",
        "image/encoder/blocks_0/down/kernel",
        "image/encoder/blocks_1/norm_1/scale",
        "image/encoder/norm/scale",
        "objective/logit_scale",
    }
    assert not any(flat(optimizers.frozen(params, ())).values())


def test_only_kernels_decay_unless_said_otherwise():
    for section, decayed in (
        ({}, KERNELS),
        ({"decay": "embedding"}, {"text/vocabulary/embedding"}),
    ):
        got = update(weight_decay=0.5, **section)
        for name, p in PARAMS.items():
            np.testing.assert_array_equal(got[name], 0.5 * p if name in decayed else 0 * p)


def test_the_first_rate_that_matches_holds_and_layerwise_decays_downwards():
    got = update(
        {name: np.ones(shape, "f4") for name, shape in SHAPES.items()},
        weight_decay=1.0,
        decay="",
        rates=[("down/kernel$", 7), ("bias$", 0.0), ["^image/", 0.5, "layerwise"], ("^text", 0.3)],
    )
    want = {
        "image/patches/kernel": 0.125,
        "image/patches/bias": 0,
        "image/positions": 0.125,
        "image/encoder/blocks_0/qkv/kernel": 0.25,
        "image/encoder/blocks_0/down/kernel": 7,
        "image/encoder/blocks_1/qkv/kernel": 0.5,
        "image/encoder/blocks_1/norm_1/scale": 0.5,
        "image/encoder/norm/scale": 1,
        "image/projection/kernel": 1,
        "text/vocabulary/embedding": 0.3,
        "text/encoder/blocks_0/up/kernel": 0.3,
        "text/encoder/blocks_0/up/bias": 0,
        "text/projection/kernel": 0.3,
        "objective/logit_scale": 1,
    }
    assert {name: u.max() for name, u in got.items()} == pytest.approx(want)
    assert {name: u.min() for name, u in got.items()} == pytest.approx(want)


def test_layerwise_over_several_towers_counts_each_towers_own_blocks():
    names = [f"{tower}/blocks_{i}/kernel" for tower, n in (("a", 12), ("b/c", 2)) for i in range(n)]
    outside = ["a/embed/kernel", "b/stem/kernel", "b/c/head/kernel", "patch_queue/kernel"]
    got = update(
        {name: np.ones((), "f4") for name in names + outside},
        weight_decay=1.0,
        rates=((".", 0.9, "layerwise"),),
    )
    assert got["a/blocks_11/kernel"] == pytest.approx(0.9)
    assert got["a/blocks_2/kernel"] == pytest.approx(0.9**10)
    assert got["b/c/blocks_0/kernel"] == pytest.approx(0.9**2)
    assert [float(got[name]) for name in outside] == pytest.approx([0.9**13, 0.9**3, 1, 1])


def test_layerwise_of_a_tower_without_a_name():
    values = {
        name: np.ones((), "f4") for name in ("patch/kernel", "blocks_0/kernel", "head/kernel")
    }
    got = update(values, weight_decay=1.0, rates=((".", 0.5, "layerwise"),))
    assert got == {"patch/kernel": 0.25, "blocks_0/kernel": 0.5, "head/kernel": 1}


def test_an_optimiser_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text(
        "import jax, jax.numpy as jnp, optax\n"
        "def signs(decayed, *, by):\n"
        "    sign = lambda g, p: jax.tree.map(lambda g: by * jnp.sign(g), g)\n"
        "    return optax.chain(optax.stateless(sign), decayed)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    got = trained(gradients=GRADIENTS[:1], name="my_own.signs", by=2.0, weight_decay=0.1)
    for name, p in PARAMS.items():
        want = p - 0.1 * (2 * np.sign(GRADIENTS[0][name]) + 0.1 * p * (name in KERNELS))
        np.testing.assert_allclose(got[name], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "section, said",
    [
        (dict(name="adamv"), ["optimizer.name", "'adamv'", "'adamw'"]),
        (dict(name="make"), ["optimizer.name", "'make'"]),
        (dict(name="data_pipelines.errors.InputError"), ["optimizer.name", "InputError"]),
        (dict(name="adamw", beta1=0.9), ["optimizer.beta1", "'b1'"]),
        (dict(name="adamw", weight_decy=0.9), ["optimizer.weight_decy", "'weight_decay'"]),
        (dict(name="adamw", decayed=0.9), ["optimizer.decayed"]),
        (dict(name="adamw", weight_decay=-0.1), ["optimizer.weight_decay", "-0.1"]),
        (
            dict(name="adamw", weight_decay=0.1, decay="kernl$"),
            ["optimizer.decay", "'kernl$'", "/kernel'"],
        ),
        (
            dict(name="adamw", freeze=("^image/", "txt/vocab")),
            ["optimizer.freeze", "'txt/vocab'", "'text/vocabulary/embedding'"],
        ),
        (dict(name="adamw", freeze="."), ["optimizer.freeze", "every parameter"]),
        (dict(name="adamw", freeze="("), ["optimizer.freeze", "'('", "not a regex"]),
        (
            dict(name="adamw", rates=(("logit_scal$", 2.0),)),
            ["optimizer.rates", "'logit_scal$'", "'objective/logit_scale'"],
        ),
        (dict(name="adamw", rates=("^image/", 0.1)), ["optimizer.rates: 0.1", "rule"]),
        (dict(name="adamw", rates=(("^image/", -1.0),)), ["optimizer.rates", "-1.0", "rule"]),
        (dict(name="adamw", rates=(("^image/", 0.5, "layers"),)), ["optimizer.rates", "'layers'"]),
        (
            dict(name="adamw", rates=(("^objective/", 0.5, "layerwise"),)),
            ["optimizer.rates", "'^objective/'", "blocks_0"],
        ),
        (dict(name="adamw", clip_norm=0), ["optimizer.clip_norm", "0"]),
        (dict(name="muon", hidden="layer_"), ["optimizer.hidden", "'layer_'"]),
        (dict(name="muon", hidden="blocks_1/norm"), ["optimizer.hidden", "no matrix"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_line(section, said):
    params = nested(PARAMS)
    with pytest.raises(InputError) as error:
        optimizers.make(params, **section).init(params)
    message = str(error.value)
    assert "\n" not in message
    for words in said:
        assert words in message


def test_trained_parameters_are_float32():
    params = nested({"image/kernel": jnp.ones(3, jnp.bfloat16), "text/kernel": jnp.ones(3)})
    optimizers.make(params, name="adamw", freeze="^image/")
    with pytest.raises(InputError, match="'image/kernel' is bfloat16"):
        optimizers.make(params, name="adamw")
