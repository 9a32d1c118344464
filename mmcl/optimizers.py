"""Optimisers, and which parameters they decay, freeze, and slow down.

An optimiser is a direction; the learning rate stays outside, so that a stage can change it without
touching the state. The train step does

    p <- p - lr * rate * (direction + weight_decay * p)

with `rate` the parameter's multiplier and the weight decay decoupled (Loshchilov and Hutter 2019).
Each optimiser is a function `(decayed, *, hyperparameters)`; `decayed` is the transformation that
adds `weight_decay * p`, and the function says where in its chain that happens. A function of one's
own of this form is named in a config by its dotted path.

Parameters are named by their path, `image/blocks_0/attention/query/kernel`; a regex is searched in
that name. Trained parameters are float32, whatever the model computes in; so is all state, unless
`state_dtype` is bfloat16, which halves it (narrow_state.py says at what price).
"""

import math
import os.path
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from data_pipelines import names
from data_pipelines.errors import InputError
from mmcl.array_names import array_names
from mmcl.narrow_state import moments, narrowed

Tree = Any  # a pytree with the structure of the parameters


def adamw(
    decayed: optax.GradientTransformation, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101): m / (sqrt(v) + eps), both debiased."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decayed)


def lion(
    decayed: optax.GradientTransformation, *, b1: float = 0.9, b2: float = 0.99
) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023, arXiv:2302.06675): sign(b1 m + (1 - b1) g); then m decays with b2.

    Wants a learning rate 3 to 10 times smaller, and a weight decay as much larger, than AdamW.
    """
    return optax.chain(optax.scale_by_lion(b1, b2), decayed)


def adafactor(
    decayed: optax.GradientTransformation,
    *,
    b1: float = 0.9,
    b2_cap: float = 0.999,
    exponent: float = 0.8,
    clip_rms: float = 1.0,
    min_factored: int = 32,
) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern 2018, 1804.04235) with Zhai et al.'s (2022, 2106.04560) moments.

    The second moment of an array with two sides >= `min_factored` is the outer product of its row
    and column means, with b2(t) = min(1 - t^-exponent, b2_cap) for t = 1, 2, ...; each array's
    update is scaled down to a root mean square of `clip_rms` at most; then a first moment, not
    debiased (b1 = 0: none, and no state). Steps are absolute, not relative to the parameter's size.
    """

    def b2(step: jax.Array, exponent: float) -> jax.Array:
        return jnp.minimum(1 - 1 / (step + 1) ** exponent, b2_cap)

    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=exponent, min_dim_size_to_factor=min_factored, decay_rate_fn=b2
        ),
        optax.clip_by_block_rms(clip_rms),
        optax.ema(b1, debias=False) if b1 else optax.identity(),
        decayed,
    )


def muon(
    decayed: optax.GradientTransformation,
    *,
    hidden: str = r"(^|/)blocks_\d+/.*kernel$",
    beta: float = 0.95,
    ns_steps: int = 5,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks, Adam for everything else.

    A matrix whose name matches `hidden` steps along its Nesterov momentum, orthogonalised by
    `ns_steps` of a quintic Newton-Schulz iteration and scaled by 0.2 sqrt(max(rows, columns)), so
    that its root mean square is that of an Adam step (Liu et al. 2025, arXiv:2502.16982) and one
    learning rate serves both. Stems, embeddings, positions, heads, projections, norms, biases,
    temperatures and arrays that are not matrices go to Adam with (b1, b2, eps), as recommended.

    Raises:
        InputError: from `init`, when `hidden` matches no trained matrix.
    """

    def method(params: Tree) -> Tree:
        matched = _matching([hidden], params, "hidden")
        methods = jax.tree.map(
            lambda p, m: "muon" if m and p.ndim == 2 else "adam", params, matched
        )
        if "muon" not in jax.tree.leaves(methods):
            raise InputError(
                f"config.optimizer.hidden: '{hidden}' matches no matrix; name some, or take adamw."
            )
        return methods

    def matrices(updates: Tree) -> Tree:
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), updates)

    def adam_sized(updates: Tree, params: Tree) -> Tree:
        return jax.tree.map(lambda u: 0.2 * max(u.shape) ** 0.5 * u, updates)

    orthogonal = optax.chain(
        contrib.scale_by_muon(
            ns_steps=ns_steps, beta=beta, eps=eps, weight_dimension_numbers=matrices
        ),
        optax.stateless(adam_sized),
    )
    adam = optax.scale_by_adam(b1, b2, eps)
    return optax.chain(optax.partition({"muon": orthogonal, "adam": adam}, method), decayed)


def lamb(
    decayed: optax.GradientTransformation, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, arXiv:1904.00962): r = adam + weight_decay p, times |p| / |r|.

    The norms are of one parameter. Vectors and scalars (biases, norms, temperatures) keep r, as in
    the authors' code.
    """

    def not_vectors(params: Tree) -> Tree:
        return jax.tree.map(lambda p: p.ndim >= 2, params)

    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        decayed,
        optax.masked(optax.scale_by_trust_ratio(), not_vectors),
    )


def sgd(
    decayed: optax.GradientTransformation, *, momentum: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent: m <- momentum m + g; the direction is m (momentum = 0: g).

    With `nesterov`, g + momentum m (Sutskever et al. 2013).
    """
    return optax.chain(optax.trace(momentum, nesterov) if momentum else optax.identity(), decayed)


def find(name: str, options: Mapping[str, Any]) -> Callable[..., optax.GradientTransformation]:
    """The optimiser of that name, for which `options` may be given: hyperparameters, or what `make`
    takes.

    Raises:
        InputError: an unknown name or key, or a value of another type.
    """
    found = names.find(__name__, name, "config.optimizer.name", takes="decayed")
    if list(names.parameters(found))[:1] != ["decayed"]:
        raise InputError(f"config.optimizer.name: '{name}' is not a function (decayed, *, ...).")
    given, ours = ("decayed", "params", "hyper"), names.parameters(make)
    names.check(found, options, "config.optimizer", given, also=ours)
    return found


def make(
    params: Tree,
    *,
    name: str,
    weight_decay: float = 0.0,
    decay: str = r"(^|/)kernel$",
    freeze: str | Sequence[str] = (),
    rates: Sequence[Sequence[Any]] = (),
    clip_norm: float | None = None,
    state_dtype: str = "float32",
    **hyper: Any,
) -> optax.GradientTransformation:
    """The optimiser of a config section, for these parameters.

    `update(gradients, state, params)` gives rate * (direction + weight_decay * p), to be multiplied
    by -lr. The order is: clip the trained gradients, direction, weight decay, rates.

    Args:
        params: parameters, or their shapes and dtypes.
        name: a function of this module, or a dotted path to one of the same form.
        weight_decay: decoupled and scaled by the learning rate, as in AdamW.
        decay: regex of what is decayed: by default arrays named `kernel`, the weights of dense,
            attention and convolution layers; no bias, norm, embedding, position or temperature.
        freeze: regexes of what never changes and has no state; see `frozen`.
        rates: learning-rate multipliers; the first rule that matches a parameter holds, and none
            means 1. A rule is `(regex, multiplier)` or `(regex, d, "layerwise")`: layer-wise decay
            (Clark et al. 2020; Bao et al. 2022), in which a tower of `depth` blocks gets
            d^(depth - i) in `blocks_{i}`, d^(depth + 1) before them (names with stem, patch, embed,
            position or token), and 1 after them.
        clip_norm: the most that the norm of all trained gradients together may be.
        state_dtype: of what is remembered of every parameter: "float32", or "bfloat16" for half the
            bytes, both moments of Adam alike; steps compute in float32.
        **hyper: hyperparameters of the optimiser.

    Raises:
        InputError: an unknown name or key, a regex that matches nothing or is none, a number out of
            range, or a trained parameter in less than float32.
    """
    optimizer = find(name, hyper)
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"config.optimizer.weight_decay: {weight_decay} should be 0 or more.")
    if clip_norm is not None and not clip_norm > 0:
        raise InputError(f"config.optimizer.clip_norm: {clip_norm} should be more than 0, or None.")
    is_frozen = frozen(params, freeze)
    _check_precision(params, is_frozen)

    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    decayed = optax.identity()
    if weight_decay:
        decayed = optax.add_decayed_weights(weight_decay, _matching([decay], params, "decay"))
    direction = optimizer(decayed, **hyper)
    if _is_narrow(state_dtype):
        trained_params = jax.tree.map(lambda p, f: None if f else p, params, is_frozen)
        _check_moments(name, direction, trained_params)
        direction = narrowed(direction)
    trained = optax.chain(clip, direction)
    multiplier = _multipliers(params, rates)
    return optax.chain(
        optax.selective_transform(trained, freeze_mask=is_frozen),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, multiplier)),
    )


def frozen(params: Tree, freeze: str | Sequence[str]) -> Tree:
    """Which parameters one of the regexes matches: a pytree of bool like `params`.

    The train step puts these under `jax.lax.stop_gradient`, so that a frozen tower has no backward.

    Raises:
        InputError: a regex matches nothing, or nothing is left to train.
    """
    matched = _matching([freeze] if isinstance(freeze, str) else freeze, params, "freeze")
    if all(jax.tree.leaves(matched)):
        raise InputError("config.optimizer.freeze: every parameter is frozen; leave one to train.")
    return matched


def _matching(regexes: Sequence[str], params: Tree, key: str) -> Tree:
    """Whether any of the regexes, each of which must match something, is found in each name."""
    named = array_names(params)
    searches = [_search(regex, jax.tree.leaves(named), key) for regex in regexes]
    return jax.tree.map(lambda name: any(search(name) for search in searches), named)


def _search(regex: str, found_in: Sequence[str], key: str) -> Callable[[str], Any]:
    try:
        search = re.compile(regex).search
    except re.error as error:
        raise InputError(f"config.optimizer.{key}: '{regex}' is not a regex: {error}.") from None
    if not any(search(name) for name in found_in):

        def likeness(name: str) -> tuple[int, int]:
            blocks = SequenceMatcher(None, name, regex, autojunk=False).get_matching_blocks()
            return sum(block.size for block in blocks), -len(name)

        raise InputError(
            f"config.optimizer.{key}: '{regex}' matches no parameter."
            f" The nearest is '{max(found_in, key=likeness)}'."
        )
    return search


def _multipliers(params: Tree, rates: Sequence[Sequence[Any]]) -> Tree:
    named = array_names(params)
    all_names = jax.tree.leaves(named)
    multiplier = dict.fromkeys(all_names, 1.0)
    for rule in reversed(rates):  # the first rule writes last
        match rule:
            case [str(regex), float() | int() as value, *form] if 0 <= value < math.inf and (
                form in ([], ["layerwise"])
            ):
                search = _search(regex, all_names, "rates")
            case _:
                raise InputError(
                    f"config.optimizer.rates: {rule!r} is not a rule; write (regex, multiplier) or"
                    " (regex, decay, 'layerwise') with a number of 0 or more."
                )
        chosen = [name for name in all_names if search(name)]
        power = _layers_above(chosen, regex) if form else dict.fromkeys(chosen, 1)
        multiplier |= {name: float(value) ** power[name] for name in chosen}
    return jax.tree.map(lambda name: multiplier[name], named)


def _layers_above(chosen: Sequence[str], regex: str) -> dict[str, int]:
    """How many layers of its tower lie between each parameter and what follows the blocks."""
    blocks = {n: m for n in chosen if (m := re.match(r"(|.*?/)blocks_(\d+)/", n))}
    if not blocks:
        raise InputError(
            f"config.optimizer.rates: '{regex}' matches no 'blocks_0/...' for 'layerwise'."
        )
    depth: dict[str, int] = {}  # of the blocks under each path
    for path, i in (block.groups() for block in blocks.values()):
        depth[path] = max(depth.get(path, 0), int(i) + 1)

    def layers(name: str) -> int:
        if block := blocks.get(name):
            return depth[block[1]] - int(block[2])
        shared = {path: os.path.commonprefix([name.split("/"), path.split("/")]) for path in depth}
        path = max(depth, key=lambda path: len(shared[path]))
        before = re.search("stem|patch|embed|position|token", name[len("/".join(shared[path])) :])
        return depth[path] + 1 if before and (shared[path] or not path) else 0

    return {name: layers(name) for name in chosen}


def _is_narrow(state_dtype: str) -> bool:
    known = ("float32", "bfloat16")
    if state_dtype not in known:
        raise InputError(
            f"config.optimizer.state_dtype: no '{state_dtype}'; there are {' and '.join(known)}."
        )
    return state_dtype == "bfloat16"


def _check_moments(name: str, direction: optax.GradientTransformation, params: Tree) -> None:
    state = jax.eval_shape(direction.init, params)
    if not any(jax.tree.leaves(moments(state, params))):
        raise InputError(
            f"config.optimizer.state_dtype: with these options '{name}' remembers nothing as large "
            "as the parameters; leave it out."
        )


def _check_precision(params: Tree, is_frozen: Tree) -> None:
    for name, p, f in zip(
        *map(jax.tree.leaves, (array_names(params), params, is_frozen)), strict=True
    ):
        if not f and p.dtype not in (jnp.float32, jnp.float64):
            raise InputError(
                f"'{name}' is {p.dtype}: keep trained parameters in float32 and compute in"
                f" {p.dtype}, or the small steps are lost."
            )
