"""What tests of the engine share."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from pallas_kernels.pair_reduce.in_kernel import evaluate
from pallas_kernels.pair_reduce.pieces import Pieces, Place, Target
from pallas_kernels.pair_reduce.stored import Stored

CUT = Target("cut", width=lambda size: 16, least=16, slices=False)


@pytest.fixture(scope="session")
def cut():
    """Vectors in pieces of 16 numbers, like those of a GPU."""
    return Pieces(CUT)


@pytest.fixture(scope="session", params=[Target("whole"), CUT], ids=lambda target: target.name)
def pieces(request):
    """Vectors in one piece, as on a TPU, and cut."""
    return Pieces(request.param)


class Page:
    """A part of a numpy array by reference, indexed as a kernel does, outside of jit."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, at):
        return self.array[_plain(at)].copy()

    def __setitem__(self, at, value):
        self.array[_plain(at)] = value


def _plain(at):
    def plain(part):
        if not isinstance(part, pl.Slice):
            return part
        abstract = isinstance(part.start, jax.core.Tracer)  # only the shape is asked for
        start = 0 if abstract else int(part.start)
        return slice(start, start + part.size)

    return tuple(map(plain, at))


@pytest.fixture(scope="session")
def page():
    """(numpy array) -> a page of it, to be read and written under jax.disable_jit."""
    return Page


@pytest.fixture(scope="session")
def held():
    """(name, array, Pieces) -> Value, read from a page with garbage beyond the end of an axis."""
    return _held


def _held(name, x, pieces):
    """The name of an array of rows begins with r, of columns with c."""
    stored = Stored(x.shape, x.dtype, *_side(name, x), pieces)
    page = stored.paged(x)[0]
    numbers = stored._replace(dtype=jnp.dtype("int32"))
    beyond = numbers.paged(jnp.ones(x.shape, jnp.int32))[0] == 0
    garbage = jnp.nan if jnp.issubdtype(page.dtype, jnp.floating) else 77
    return stored.read(jnp.where(beyond, jnp.asarray(garbage, page.dtype), page))


def _side(name, x):
    return {"r": "row", "c": "col"}.get(name[:1], "all"), x.shape[0] if x.shape else 1


@pytest.fixture(scope="session")
def by_pieces():
    """(function, {name: array}, Pieces): checks `function`, evaluated on pieces, in float64."""
    return _check


def _check(function, inputs, pieces, tolerance=1e-12):
    def flat(*args):
        return jax.tree.leaves(function(*args))

    @jax.jit
    def both(*args):
        values = [_held(name, x, pieces) for name, x in zip(inputs, args)]
        results = evaluate(pieces, jax.make_jaxpr(flat)(*args), values)
        made.extend(results)
        return flat(*args), [_parts(value, pieces) for value in results]

    made = []
    with jax.enable_x64(True):
        args = [jnp.asarray(x) for x in inputs.values()]
        paths = jax.tree.leaves_with_path(jax.eval_shape(function, *args))
        wanted, parts = jax.device_get(both(*args))
    for (path, _), value, some, want in zip(paths, made, parts, wanted, strict=True):
        where = jax.tree_util.keystr(path)
        got = _assembled(value, some, pieces, where)
        bound = tolerance * max(1.0, np.abs(want).max(initial=0))
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=where)


@pytest.fixture(scope="session")
def assembled():
    """(Value, Pieces) -> its array."""
    return lambda value, pieces: _assembled(
        value, [np.asarray(part) for part in _parts(value, pieces)], pieces
    )


def _counts(value, pieces):
    """How many matrices there are along each axis."""
    listed = {Place.LISTED: lambda axis: axis.size, Place.SAME: lambda axis: 1}
    return [listed.get(axis.place, pieces.cuts)(axis) for axis in value.axes]


def _parts(value, pieces):
    """Every cut of every piece."""
    parts = []
    for at in np.ndindex(*_counts(value, pieces)):
        cut, place = [0, 0], list(at)
        for i, axis in enumerate(value.axes):
            if axis.place in (Place.FIRST, Place.SECOND):
                cut[axis.place], place[i] = at[i], 0
        parts.append(value.pieces[tuple(place)](tuple(cut)))
    return parts


def _assembled(value, parts, pieces, where=""):
    """The array of a Value; its pieces are to be as its axes say."""
    whole = np.zeros(value.shape, value.dtype)
    cuts = []
    for axis in value.axes:
        assert axis.size > 1 or axis.place == Place.SAME, where
        listed, same = axis.place == Place.LISTED, axis.place == Place.SAME
        cut = (pieces.width(axis),) * pieces.cuts(axis)
        cuts.append((1,) * axis.size if listed else (axis.size,) if same else cut)
    counts = _counts(value, pieces)
    inside = [axis.place in (Place.FIRST, Place.SECOND) for axis in value.axes]
    assert value.pieces.shape == tuple(1 if i else n for i, n in zip(inside, counts)), where
    starts = [(0, *itertools.accumulate(cut)) for cut in cuts]
    for part, at in zip(parts, np.ndindex(*counts)):
        assert part.dtype == value.dtype, where
        shape, inside = [1, 1], {}
        for i, axis in enumerate(value.axes):
            if axis.place in (Place.FIRST, Place.SECOND):
                assert axis.place not in inside.values(), where
                shape[axis.place], inside[i] = cuts[i][at[i]], axis.place
        assert part.shape == tuple(shape) or (part.shape == () and not inside), where
        if list(inside.values()) == [Place.SECOND, Place.FIRST]:
            part = part.T
        part = part.reshape([cuts[i][at[i]] if i in inside else 1 for i in range(len(cuts))])
        ends = [
            min(start[k] + cut[k], start[-1], size)
            for start, cut, k, size in zip(starts, cuts, at, value.shape)
        ]
        into = tuple(slice(start[k], end) for start, k, end in zip(starts, at, ends))
        whole[into] = part[tuple(slice(0, i.stop - i.start) for i in into)]
    return whole


@pytest.fixture(scope="session")
def assert_close():
    """(got, want, rtol): each leaf, relative to its largest finite entry; the rest exactly."""
    return _assert_close


def _assert_close(got, want, rtol):
    got, want = jax.tree.leaves_with_path(got), jax.tree.leaves_with_path(want)
    assert len(got) == len(want)
    for (path, a), (_, b) in zip(got, want):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, path
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=str(path))
        scale = np.abs(b[finite]).max(initial=1e-3)
        np.testing.assert_allclose(
            a[finite] / scale, b[finite] / scale, rtol=0, atol=rtol, err_msg=str(path)
        )
