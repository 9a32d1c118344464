"""Programs put together at random, and their derivatives, have the same values piece by piece.

An array is known by its axes, one letter each, in any order: r rows, c columns, t and u tokens, d
numbers of a vector.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

INPUTS = ["r", "rd", "rtd", "c", "cd", "cud", "d", "td", ""]
CURVES = [jnp.tanh, jnp.sin, lambda x: jnp.exp(-x * x), jax.nn.softplus, lambda x: 1 / (1 + x * x)]
PAIRS = [
    lambda x, y: x * y,
    lambda x, y: x - 0.5 * y,
    jnp.maximum,
    lambda x, y: jnp.where((x > y) & (y < 0.4), x, 0.3 * y),
    lambda x, y: jnp.where(jnp.any(x > y, axis=0, keepdims=True), x, y),
]
FOLDS = [jnp.sum, jnp.max, jnp.min, jnp.mean]


def rolled(x, i):
    first, rest = jnp.split(x, [1], axis=i)
    return jnp.concatenate([rest, 2 * first], axis=i)


def shifted(x, i):
    ends = [(0, 1) if k == i else (0, 0) for k in range(x.ndim)]
    return jnp.pad(lax.slice_in_dim(x, 1, None, axis=i), ends, constant_values=0.5)


def thinned(x, i):
    return x + jnp.sum(lax.slice_in_dim(x, 0, None, 2, i), axis=i, keepdims=True)


def stacked(x, i):
    return jnp.sum(jnp.stack([x, 2 * x, jnp.sin(x)], axis=i), axis=i)


def squeezed(x, i):
    return jnp.squeeze(jnp.sin(jnp.expand_dims(x, i)), i)


def entries(x, i):
    return jnp.stack([(1 + k) * part for k, part in enumerate(jnp.unstack(x, axis=i))], axis=i)


MOVES = [rolled, shifted, thinned, stacked, squeezed, entries]


def met(x, axes, over):
    """`x`, whose axes are `axes`, laid out to meet arrays with the axes `over`."""
    x = jnp.transpose(x, [axes.index(a) for a in over if a in axes])
    return jnp.expand_dims(x, [k for k, a in enumerate(over) if a not in axes])


def curve(draw, axes, _):
    f = draw(st.sampled_from(CURVES))
    return axes, lambda x, y: f(x)


def pair(draw, axes, others):
    f = draw(st.sampled_from(PAIRS if axes or others else PAIRS[:2]))
    over = "".join(draw(st.permutations(sorted({*axes, *others}))))
    return over, lambda x, y: f(*jnp.broadcast_arrays(met(x, axes, over), met(y, others, over)))


def product(draw, axes, others):
    gone = draw(subsets({*axes} & {*others}))
    out = "".join(draw(st.permutations(sorted({*axes, *others} - gone))))
    return out, lambda x, y: 0.1 * jnp.einsum(f"{axes},{others}->{out}", x, y)


def fold(draw, axes, _):
    f, gone = draw(st.sampled_from(FOLDS)), draw(subsets({*axes}))
    rest = "".join(a for a in axes if a not in gone)
    return rest, lambda x, y: f(x, axis=tuple(map(axes.index, sorted(gone))))


def move(draw, axes, _):
    tokens = [k for k, a in enumerate(axes) if a in "tu"]
    if not tokens:
        return axes[::-1], lambda x, y: x.T
    f, i = draw(st.sampled_from(MOVES)), draw(st.sampled_from(tokens))
    return axes, lambda x, y: f(x, i)


def subsets(of):
    return st.sets(st.sampled_from(sorted(of))) if of else st.just(set())


SIZES = {"r": [1, 16, 32], "c": [16, 24], "t": [1, 2, 3], "u": [1, 2], "d": [1, 5, 24, 32, 40]}


@st.composite
def programs(draw):
    """Inputs by name and a function of them: a few steps, each on what there is so far."""
    sizes = {letter: draw(st.sampled_from(some)) for letter, some in SIZES.items()}
    known, steps = list(INPUTS), []
    for _ in range(draw(st.integers(2, 6))):
        made = list(range(len(INPUTS), len(known)))  # more often than the inputs
        i, j = (draw(st.sampled_from([*range(len(known)), *made, *made[-1:] * 5])) for _ in "xy")
        if len({*known[i], *known[j]}) > 4:
            j = i
        step = draw(st.sampled_from([curve, pair, pair, product, product, fold, move]))
        axes, function = step(draw, known[i], known[j])
        known.append(axes)
        steps.append((function, i, j))

    def run(*inputs):
        values = list(inputs)
        for function, i, j in steps:
            values.append(function(values[i], values[j]))
        return values[len(inputs) :]

    def with_derivative(*inputs):
        made, pull = jax.vjp(run, *inputs)
        return made, pull([jnp.cos(x) for x in made])

    rng = np.random.default_rng(draw(st.integers(0, 99)))
    given = {axes: rng.uniform(0.2, 0.9, [sizes[a] for a in axes]) for axes in INPUTS}
    return given, with_derivative


@settings(max_examples=4)
@given(program=programs())
def test_a_random_program_and_its_derivative(program, pieces, by_pieces):
    inputs, function = program
    by_pieces(function, inputs, pieces)


@pytest.mark.long
@settings(max_examples=20)
@given(program=programs())
def test_many_random_programs(program, pieces, by_pieces):
    inputs, function = program
    by_pieces(function, inputs, pieces)
