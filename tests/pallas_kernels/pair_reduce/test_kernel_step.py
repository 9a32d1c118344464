"""A step on pages of plain numpy arrays, tile after tile, does what `sweep` does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.pair_reduce.kernel_step import step
from pallas_kernels.pair_reduce.sweep import State, length, sweep
from pallas_kernels.pair_reduce.types import At

BEGIN = At(jnp.int32(0), jnp.int32(0))


def by_steps(visit, rows, cols, state, blocks, pieces, page, group=None, start=BEGIN):
    """As `sweep`; each page of the state is written where it was read."""
    n, m = length(rows), length(cols)
    body, *leaves = step(visit, rows, cols, state, start, blocks, group, pieces)

    def pages(stored, arrays):
        return [np.array(how.paged(jnp.asarray(x))) for how, x in zip(stored, arrays, strict=True)]

    shared, row, col = map(pages, (body.shared, body.rows, body.cols), (body.values, *leaves))
    kept = State(*(pages(how, jax.tree.leaves(part)) for how, part in zip(body.state, state)))
    visited = 0
    for i in range(-(-n // blocks[0])):
        for j in range(-(-m // blocks[1])):
            here = At(start.row + i * blocks[0], start.col + j * blocks[1])
            if not body.counts(here, group):
                continue
            visited += 1
            now = State(*([page(x[k]) for x in part] for part, k in zip(kept, (i, j, 0))))
            sides = ([page(x[k]) for x in side] for side, k in zip((shared, row, col), (0, i, j)))
            with jax.disable_jit():
                body(*sides, now, now, here, At(start.row + n, start.col + m))
    return body.whole_state([*kept.row, *kept.col, *kept.all], state), visited


@pytest.fixture
def check(page):
    return partial(_check, page)


def _check(page, visit, rows, cols, state, blocks, pieces, **options):
    """Both give the same; the tiles that were visited."""
    start = options.pop("start", BEGIN)
    whole = jax.jit(lambda *args: sweep(visit, *args, start, blocks=blocks, **options))
    wanted = whole(rows, cols, state)
    got, visited = by_steps(visit, rows, cols, state, blocks, pieces, page, start=start, **options)
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)
    return visited


def vectors(n, *inner):
    rng = np.random.default_rng(n)
    return jnp.asarray(rng.normal(size=(n, *inner)), jnp.float32)


def test_a_total_that_depends_on_the_largest_number_beside_it(pieces, check):
    """The largest number is written first; the total is rescaled by the one before."""

    def merged(old, x, axis):
        top = jnp.maximum(old[0], jnp.max(x, axis=axis))
        here = jnp.sum(jnp.exp(x - jnp.expand_dims(top, axis or ())), axis=axis)
        return top, old[1] * jnp.exp(old[0] - top) + here

    def visit(row, col, state, at, valid):
        x = row @ col.T
        grid = x if valid is None else jnp.where(valid, x, -1e30)
        each = zip(state, (1, 0, (0, 1)))
        return State(*(merged(old, grid, axis) for old, axis in each))

    def nothing(*shape):
        return jnp.full(shape, -1e30), jnp.zeros(shape)

    state = State(nothing(40), nothing(24), nothing())
    check(visit, vectors(40, 24), vectors(24, 24), state, (16, 16), pieces)


def test_leaves_that_change_places(pieces, check):
    def visit(row, col, state, at, valid):
        a, b, c = state.row
        return State((b, c, a + jnp.sum(col)), (), ())

    state = State((vectors(32), vectors(32) + 1, vectors(32) + 2), (), ())
    check(visit, vectors(32), vectors(48), state, (16, 16), pieces)


def test_a_leaf_whose_matrices_change_places(pieces, check):
    """A list of the last vectors: each is written where the next one is read."""

    def visit(row, col, state, at, valid):
        new = (row + jnp.sum(col))[:, None]
        return State(jnp.concatenate([new, state.row[:, :2]], axis=1), (), ())

    state = State(vectors(16, 3, 16), (), ())
    check(visit, vectors(16, 16), vectors(64), state, (16, 16), pieces)


def test_vectors_that_are_cut_do_not_change_places(cut, check):
    """A kernel would write a cut before it has read it for another."""

    def visit(row, col, state, at, valid):
        shifted = jnp.concatenate([row[:, None], state.row[:, :-1]], axis=1)
        return State(shifted, (), ())

    with pytest.raises(NotImplementedError, match="changes places along vectors of 24"):
        check(visit, vectors(16, 24), vectors(16), State(vectors(16, 3, 24), (), ()), (16, 16), cut)


def test_a_leaf_that_is_added_to_entry_by_entry_is_not_read_before(pieces):
    def visit(row, col, state, at, valid):
        d = row * jnp.sum(col)
        return State((state.row[0] + d, state.row[1] + jnp.sum(d)), (), (state.all * 2,))

    state = State((vectors(16, 24), vectors(16)), (), jnp.zeros(()))
    body, *_ = step(visit, vectors(16, 24), vectors(16), state, BEGIN, (16, 16), None, pieces)
    given = len(body.shared) + len(body.rows) + len(body.cols)
    assert body._read_first(given, 3) == []


def counted(row, col, state, at, valid):
    """How many pairs there are, and where: whatever is filled up would show."""
    there = jnp.ones((len(at.row), len(at.col)))
    there = there if valid is None else jnp.where(valid, there, 0.0)
    where = there * (at.row[:, None] * 3 + at.col).astype(jnp.float32)
    total = jnp.sum(where * (1 + row["x"][:, None] * col["y"]))
    by_row = state.row + jnp.sum(there, 1), state.col + jnp.sum(where, 0)
    return State(*by_row, state.all + jnp.stack([total, jnp.sum(there)]))


def counting(n, m):
    return {"x": vectors(n)}, {"y": vectors(m)}, State(jnp.zeros(n), jnp.zeros(m), jnp.zeros(2))


@pytest.mark.parametrize("n, m", [(32, 16), (33, 16), (5, 47)])
def test_filled_up_rows_do_not_count(n, m, pieces, check):
    assert check(counted, *counting(n, m), (16, 16), pieces) == -(-n // 16) * -(-m // 16)


@pytest.mark.parametrize("n, m, group", [(30, 20, (15, 10)), (20, 30, (2, 3))])
def test_pairs_of_two_groups_do_not_count(n, m, group, pieces, check):
    start = At(jnp.int32(3 * group[0]), jnp.int32(3 * group[1]))
    check(counted, *counting(n, m), (16, 16), pieces, group=group, start=start)


def test_tiles_without_a_pair_of_a_group_are_not_visited(cut):
    body, *_ = step(counted, *counting(4, 4), BEGIN, (4, 4), None, cut)
    rng = np.random.default_rng(0)
    for _ in range(300):
        blocks = tuple(map(int, rng.integers(1, 9, 2)))
        group = tuple(map(int, rng.integers(1, 7, 2)))
        at = tuple(map(int, rng.integers(0, 40, 2)))
        some = body._replace(blocks=blocks)
        row, col = (
            np.arange(first, first + size) // of for first, size, of in zip(at, blocks, group)
        )
        start = At(*map(np.int32, at))
        assert bool(some.counts(start, group)) == bool((row[:, None] == col).any())
        assert some.counts(start, None) is True
