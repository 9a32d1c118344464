"""Pages hold an array, whatever its rank, type and length; a kernel reads and writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.pair_reduce.stored import Stored

SHAPES = [(), (1,), (5,), (1, 24), (5, 1), (13, 3, 40), (7, 1, 24), (6, 3, 1), (9, 2, 3, 5)]
BLOCKS = [("all", 0), ("row", 4), ("col", 16)]
TYPES = ["bool", "int32", "bfloat16", "float32", "float64"]
CASES = pytest.mark.parametrize(
    "shape, side, block",
    [(shape, *block) for shape in SHAPES for block in BLOCKS if shape or block[0] == "all"],
)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True), jax.disable_jit():
        yield


def array(shape, dtype="float32"):
    rng = np.random.default_rng(len(shape))
    return jnp.asarray(rng.integers(-9, 9, shape)).astype(jnp.dtype(dtype))


def stored(shape, side, block, pieces, dtype="float32"):
    return Stored(shape, jnp.dtype(dtype), side, block, pieces)


def block_of(x, how, i):
    """What page i should show: a block, filled up with copies of the last row."""
    if how.side == "all":
        return x
    return x[np.minimum(np.arange(i * how.block, (i + 1) * how.block), len(x) - 1)]


@CASES
def test_pages_hold_the_whole_array(shape, side, block, cut):
    x, how = array(shape), stored(shape, side, block, cut)
    pages = how.paged(x)
    assert pages.shape == (how.blocks, *how.page)
    assert how.page_bytes == pages.nbytes // how.blocks
    assert how.blocks == (1 if side == "all" else -(-len(x) // block))
    np.testing.assert_array_equal(how.whole(pages), x)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_comes_back(dtype, pieces):
    x, how = array((5, 3, 24), dtype), stored((5, 3, 24), "row", 4, pieces, dtype)
    pages = how.paged(x)
    assert pages.dtype == how.kernel_dtype == ("int32" if dtype == "bool" else x.dtype)
    whole = how.whole(pages).astype(x.dtype)
    np.testing.assert_array_equal(whole, x)


@CASES
def test_a_page_reads_as_its_block_and_the_last_is_filled_with_copies(
    shape, side, block, pieces, assembled, page
):
    x, how = array(shape), stored(shape, side, block, pieces)
    for i, block in enumerate(np.asarray(how.paged(x))):
        value = how.read(page(block))
        want = np.asarray(block_of(np.asarray(x), how, i))
        assert value.shape == want.shape
        np.testing.assert_array_equal(assembled(value, pieces), want)


@pytest.mark.parametrize("dtype", TYPES)
def test_flags_and_numbers_are_read_as_they_are(dtype, pieces, assembled, page):
    for shape, side in [((5,), "row"), ((5,), "col"), ((5, 3, 24), "col")]:
        x, how = array(shape, dtype), stored(shape, side, 5, pieces, dtype)
        value = how.read(page(np.asarray(how.paged(x))[0]))
        assert value.dtype == x.dtype
        np.testing.assert_array_equal(assembled(value, pieces), np.asarray(x))


@CASES
def test_what_is_written_is_what_was_computed(shape, side, block, pieces, assembled, page):
    """The block itself; the same number everywhere; an array that lies across the page."""
    x, how = array(shape), stored(shape, side, block, pieces)
    pages = np.asarray(how.paged(x))
    written = np.full_like(pages, 7)
    goals = [page(goal) for goal in written]
    for given, goal in zip(pages, goals):
        how.write(goal, how.read(page(given)))
    np.testing.assert_array_equal(how.whole(written), x)
    number = pieces.constant(np.float32(3))
    for goal in goals:
        how.write(goal, pieces.broadcast(number, how.read(goal).shape, ()))
    np.testing.assert_array_equal(how.whole(written), np.full(shape, 3))
    if len(shape) > 1:
        turned = stored((shape[-1], *shape[1:-1], how.read(goals[0]).shape[0]), "all", 0, pieces)
        y = array(turned.shape)
        across = turned.read(page(np.asarray(turned.paged(y))[0]))
        order = (len(shape) - 1, *range(1, len(shape) - 1), 0)
        how.write(goals[0], pieces.transpose(across, order))
        got = assembled(how.read(goals[0]), pieces)
        np.testing.assert_array_equal(got, np.transpose(np.asarray(y), order))


def test_flags_are_written_as_numbers(pieces):
    for side in ("row", "col"):
        x, how = array((16,), "bool"), stored((16,), side, 16, pieces, "bool")
        page = np.zeros(how.page, np.int32)
        how.write(page, how.read(np.asarray(how.paged(x))[0]))
        np.testing.assert_array_equal(how.whole(page[None]), np.asarray(x))


def test_a_vector_is_padded_to_its_pieces_with_zeros(cut):
    how = stored((6, 2, 24), "row", 4, cut)
    assert how.page == (2, 4, 32)
    pages = np.asarray(how.paged(array((6, 2, 24)) + 100))
    assert (pages[..., :24] > 0).all() and not pages[..., 24:].any()
    assert stored((40,), "all", 0, cut).page == (1, 48)
    assert stored((24, 40), "all", 0, cut).page == (1, 32, 48)
    assert stored((40,), "row", 8, cut).page == (1, 8)


def test_a_page_is_read_once_and_one_that_is_cut_at_every_use(cut):
    class Page:
        read = 0

        def __getitem__(self, at):
            self.read += 1
            return np.zeros((16, 16), np.float32)

    for width, times in ((16, 1), (24, 3)):
        page = Page()
        (piece,) = stored((16, width), "row", 16, cut).read(page).pieces.flat
        for _ in range(3):
            piece()
        assert page.read == times


def test_a_type_that_a_device_lacks_is_stored_in_32_bits(pieces, assembled):
    lacking = type(pieces)(pieces.target._replace(lacks=frozenset({"bool", "float16"})))
    x = array((8, 24), "float16")
    how = stored((8, 24), "row", 8, lacking, "float16")
    assert how.paged(x).dtype == jnp.float32
    np.testing.assert_array_equal(how.whole(how.paged(x)), x)
