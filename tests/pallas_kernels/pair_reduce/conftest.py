"""What tests of the engine share; most of their time goes into compiling what runs once."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from pallas_kernels.pair_reduce.in_kernel import evaluate
from pallas_kernels.pair_reduce.pieces import Pieces, Place, Target
from pallas_kernels.pair_reduce.stored import Stored


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    """Programs are compiled in half the time, without most optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
    """An array as a kernel's reference to it: numpy's to be written, any to be read."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, at):
        x = jnp.asarray(self.array)
        for axis, index in reversed(list(enumerate(at))):
            if isinstance(index, pl.Slice):
                x = jax.lax.dynamic_slice_in_dim(x, index.start, index.size, axis)
            elif not isinstance(index, slice):
                x = jax.lax.index_in_dim(x, index, axis, keepdims=False)
        return x

    def __setitem__(self, at, value):
        def one(index):
            if isinstance(index, pl.Slice):
                return slice(int(index.start), int(index.start) + index.size)
            return index

        self.array[tuple(map(one, at))] = value


@pytest.fixture(scope="session")
def page():
    """array -> what `Stored.read` and `write` take for a page."""
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
    return stored.read(Page(jnp.where(beyond, jnp.asarray(garbage, page.dtype), page)))


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
    return lambda value, pieces: _assembled(value, _parts(value, pieces), pieces)


def _cuts(value, pieces):
    counts = [1, 1]
    for axis in value.axes:
        if axis.place in (Place.FIRST, Place.SECOND):
            counts[axis.place] = pieces.cuts(axis)
    return list(np.ndindex(*counts))


def _parts(value, pieces):
    """Every cut of every piece."""
    return [piece(cut) for piece in value.pieces.flat for cut in _cuts(value, pieces)]


def _assembled(value, parts, pieces, where=""):
    """The array of a Value; its pieces are to be as its axes say."""
    whole = np.zeros(value.shape, value.dtype)
    counts = [axis.size if axis.place == Place.LISTED else 1 for axis in value.axes]
    assert value.pieces.shape == tuple(counts), where
    inside = [axis.place for axis in value.axes if axis.place in (Place.FIRST, Place.SECOND)]
    assert len(set(inside)) == len(inside), where
    indices = itertools.product(np.ndindex(*counts), _cuts(value, pieces))
    for part, (at, cut) in zip(parts, indices, strict=True):
        assert part.dtype == value.dtype, where
        shape, into, lengths = [1, 1], [], []
        for axis, k in zip(value.axes, at):
            assert axis.size > 1 or axis.place == Place.SAME, where
            width = 1
            if axis.place == Place.SAME:
                into.append(slice(None))
            elif axis.place == Place.LISTED:
                into.append(slice(k, k + 1))
            else:
                shape[axis.place] = width = pieces.width(axis)
                into.append(slice(cut[axis.place] * width, (cut[axis.place] + 1) * width))
            lengths.append(width)
        assert part.shape == tuple(shape) or (part.shape == () and not inside), where
        part = np.asarray(part).T if inside == [Place.SECOND, Place.FIRST] else np.asarray(part)
        part = part.reshape(lengths)
        ends = [
            slice(0, n if s == slice(None) else size - s.start)
            for s, n, size in zip(into, lengths, value.shape)
        ]
        whole[tuple(into)] = part[tuple(ends)]
    return whole
