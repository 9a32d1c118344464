"""Picture transforms against NumPy."""

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.faults import Fault
from data_pipelines.transforms import image

STILL = {"degrees": 0.0, "zoom": (1.0, 1.0), "stretch": 1.0, "shift": 0.0, "flip": 0.0}
STRONG = {
    image.affine: {"degrees": 90.0, "zoom": (0.5, 2.0), "stretch": 2.0, "shift": 0.3, "flip": 0.5},
    image.composite: {"colour": 1.0},
    image.jitter: {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "channels": 0.5},
    image.sketch: {"grey": 0.3, "outline": 0.3, "invert": 0.5},
}
seeds = st.integers(0, 10**6)
quick = settings(max_examples=25, deadline=None)


class Most:
    """Draws the upper bound of what is asked for, and a certain yes."""

    def uniform(self, low, high):
        return high

    def random(self):
        return 0.0


def rgba(seed=0, height=16, width=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)


def cut_out(seed=0, height=16, width=16):
    """Pixels that are opaque or not there at all, with room around them."""
    picture = rgba(seed, height, width)
    picture[..., 3] = 255 * (picture[..., 3] > 90)
    picture[[0, 1, 2, -3, -2, -1]] = picture[:, [0, 1, 2, -3, -2, -1]] = 0
    return picture * (picture[..., 3:] > 0)


def for_(transform, seed=0):
    return rgba(seed) if transform in (image.affine, image.composite) else rgba(seed)[..., :3]


def run(transform, value, rng=0, train=True, **options):
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    return transform(value, rng=rng, train=train, **options)


@pytest.mark.parametrize("transform", [image.affine, image.jitter, image.sketch])
def test_evaluation_leaves_a_picture_alone(transform):
    value = for_(transform)
    for seed in range(8):
        found = run(transform, value, seed, train=False, **STRONG[transform])
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("transform", STRONG)
@quick
@given(seed=seeds)
def test_one_rng_gives_one_picture_of_bytes(transform, seed):
    value = for_(transform, seed)
    before = value.copy()
    first, second = (run(transform, value, seed, **STRONG[transform]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(value, before)
    assert first.dtype == np.uint8
    assert first.shape == (16, 16, 4 if transform is image.affine else 3)


@pytest.mark.parametrize("transform", STRONG)
def test_another_rng_gives_another_picture(transform):
    found = {run(transform, for_(transform), s, **STRONG[transform]).tobytes() for s in range(20)}
    assert len(found) > 5


@quick
@given(seed=seeds, height=st.integers(1, 20), width=st.integers(1, 20))
def test_affine_without_options_is_the_identity(seed, height, width):
    value = rgba(seed, height, width)
    np.testing.assert_array_equal(run(image.affine, value, seed, **STILL), value)


@quick
@given(seed=seeds, height=st.integers(8, 20), width=st.integers(8, 20), cells=st.integers(1, 3))
def test_affine_shifts(seed, height, width, cells):
    value = np.pad(cut_out(seed, 8, 8), ((0, 12), (0, 12), (0, 0)))
    found = run(image.affine, value, Most(), **STILL | {"shift": cells / 20})
    np.testing.assert_array_equal(found, np.roll(value, (cells, cells), (0, 1)))


@quick
@given(seed=seeds, size=st.integers(8, 20))
def test_affine_turns(seed, size):
    value = cut_out(seed, size, size)
    for degrees, quarters in ((90.0, 1), (180.0, 2), (-90.0, 3)):
        found = run(image.affine, value, Most(), **STILL | {"degrees": degrees})
        np.testing.assert_array_equal(found, np.rot90(value, -quarters))


@quick
@given(seed=seeds, height=st.integers(8, 20), width=st.integers(8, 20))
def test_affine_mirrors_and_turns_around_the_middle(seed, height, width):
    value = cut_out(seed, height, width)
    found = run(image.affine, value, Most(), **STILL | {"flip": 1.0})
    np.testing.assert_array_equal(found, value[:, ::-1])
    found = run(image.affine, value, Most(), **STILL | {"degrees": 180.0})
    np.testing.assert_array_equal(found, value[::-1, ::-1])


def test_affine_zooms_and_stretches():
    """A square of 8 in 32 pixels becomes one of 16, or 16 wide and 4 high."""
    value = np.zeros((32, 32, 4), np.uint8)
    value[12:20, 12:20] = 255
    for options, (height, width) in (
        ({"zoom": (1.0, 2.0)}, (16, 16)),
        ({"zoom": (0.5, 0.5)}, (4, 4)),
        ({"stretch": 2.0}, (4, 16)),
    ):
        alpha = run(image.affine, value, Most(), **STILL | options)[..., 3]
        np.testing.assert_allclose((alpha > 127).any(1).sum(), height)
        np.testing.assert_allclose((alpha > 127).any(0).sum(), width)


def test_affine_draws_from_the_whole_range_both_ways():
    """The centroid of a dot moves by up to the shift, evenly to all sides."""
    value = np.zeros((33, 33, 4), np.uint8)
    value[14:19, 14:19] = 255
    moved = []
    for seed in range(200):
        alpha = run(image.affine, value, seed, **STILL | {"shift": 0.2})[..., 3].astype(float)
        y, x = np.mgrid[:33, :33] - 16
        moved.append(((alpha * x).sum() / alpha.sum(), (alpha * y).sum() / alpha.sum()))
    moved = np.array(moved) / 33
    assert 0.19 < moved.max() < 0.202 and -0.202 < moved.min() < -0.19
    assert np.abs(moved.mean(0)).max() < 0.03
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.25


@quick
@given(seed=seeds)
def test_edges_have_no_dark_fringe(seed):
    """Half-covered pixels keep their colour: it is alpha that fades, as far as bytes can say."""
    value = np.zeros((24, 24, 4), np.uint8)
    value[7:17, 7:17] = colour = (250, 130, 30, 255)
    found = run(image.affine, value, seed, **STRONG[image.affine]).astype(float)
    alpha = found[..., 3]
    seen = alpha > 8
    error = np.abs(found[..., :3] - colour[:3]).max(-1)
    assert (error[seen] <= 255 / alpha[seen] + 1).all()
    assert (alpha[seen] < 250).any()


@quick
@given(seed=seeds, colour=st.sampled_from([0.0, 1.0]), train=st.booleans())
def test_composite_is_its_formula(seed, colour, train):
    value = rgba(seed)
    value[0, 0, 3] = 0
    found = run(image.composite, value, seed, train, colour=colour)
    ground = found[0, 0].astype(float) if train and colour else 255.0
    rgb, alpha = value[..., :3].astype(float), value[..., 3:] / 255
    np.testing.assert_array_equal(found, np.floor(rgb * alpha + ground * (1 - alpha) + 0.5))


def test_composite_draws_grounds():
    empty = np.zeros((1, 1, 4), np.uint8)
    grounds = np.array([run(image.composite, empty, s, colour=0.3)[0, 0] for s in range(600)])
    coloured = grounds[(grounds < 255).any(1)]
    assert 130 < len(coloured) < 230
    assert (np.abs(coloured.mean(0) - 127.5) < 20).all()
    assert (coloured.max(0) > 245).all() and (coloured.min(0) < 10).all()
    assert (np.abs(np.corrcoef(coloured.T) - np.eye(3)) < 0.3).all()


@quick
@given(seed=seeds, channels=st.sampled_from([0.0, 1.0]))
def test_jitter_is_its_formula(seed, channels):
    value = rgba(seed)[..., :3]
    found = run(image.jitter, value, seed, **STRONG[image.jitter] | {"channels": channels})

    rng = np.random.default_rng(seed)
    rgb = value.astype(float)
    if rng.random() < channels:
        rgb = rgb[..., rng.permutation(3)]
    bright, contrast, saturation = (rng.uniform(0.1, 1.9) for _ in range(3))
    grey = 0.299 * rgb[..., :1] + 0.587 * rgb[..., 1:2] + 0.114 * rgb[..., 2:]
    mean = grey.mean()
    rgb = grey + saturation * (rgb - grey)
    rgb = bright * (mean + contrast * (rgb - mean))
    want = np.floor(np.clip(rgb, 0, 255) + 0.5).clip(0, 255)
    assert np.abs(found - want).max() <= 1  # where float32 falls on the other side of a half
    assert (found != want).mean() < 0.01


@quick
@given(seed=seeds)
def test_greys_have_no_colour_to_change(seed):
    value = np.repeat(rgba(seed)[..., :1], 3, axis=2)
    only = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.9, "channels": 1.0}
    np.testing.assert_array_equal(run(image.jitter, value, seed, **only), value)


@quick
@given(seed=seeds)
def test_jitter_without_options_is_the_identity(seed):
    value = rgba(seed)[..., :3]
    none = dict.fromkeys(STRONG[image.jitter], 0.0)
    np.testing.assert_array_equal(run(image.jitter, value, seed, **none), value)


@quick
@given(seed=seeds)
def test_sketch_at_probabilities_of_zero_and_one(seed):
    value = rgba(seed)[..., :3]
    sketch = functools.partial(run, image.sketch, value, seed)
    np.testing.assert_array_equal(sketch(grey=0.0, outline=0.0, invert=0.0), value)
    np.testing.assert_array_equal(sketch(grey=0.0, outline=0.0, invert=1.0), 255 - value)
    grey = sketch(grey=1.0, outline=0.0)
    want = value @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - want[..., None]).max() <= 1
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(sketch(grey=1.0, outline=1.0), grey)
    np.testing.assert_array_equal(sketch(grey=1.0, outline=0.0, invert=1.0), 255 - grey)


def test_outlines_are_black_on_white():
    for ground, figure in ((255, 40), (0, 200)):
        value = np.full((20, 20, 3), ground, np.uint8)
        value[6:14, 6:14] = figure
        found = run(image.sketch, value, grey=0.0, outline=1.0)[..., 0]
        edge = np.zeros((20, 20), bool)
        edge[5:15, 5:15] = True
        edge[7:13, 7:13] = False
        assert (found[~edge] == 255).all()
        assert found.min() == 0
        assert (found[edge] < 255).sum() >= 28
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert (run(image.sketch, flat, grey=0.0, outline=1.0) == 255).all()


def test_sketch_draws_with_its_probabilities():
    """Of a red dot on white: red stays, or goes to grey, or to white inside a line."""
    value = np.full((9, 9, 3), 255, np.uint8)
    value[2:7, 2:7] = (255, 0, 0)
    middles = [run(image.sketch, value, s, grey=0.3, outline=0.1)[4, 4] for s in range(1000)]
    kinds = [tuple(middle.tolist()) for middle in middles]
    assert set(kinds) == {(255, 0, 0), (76, 76, 76), (255, 255, 255)}
    assert abs(kinds.count((76, 76, 76)) - 300) < 60
    assert abs(kinds.count((255, 255, 255)) - 100) < 40


@quick
@given(seed=seeds, train=st.booleans(), size=st.sampled_from([8, 16, 24]))
def test_resize_gives_its_size_and_shows_only_in_evaluation(seed, train, size):
    value = rgba(seed, 16, 20)[..., :3]
    found = run(image.resize, value, train=train, size=size)
    assert found.keys() == ({"value"} if train else {"value", "raw"})
    assert found["value"].shape == (size, size, 3)
    assert found["value"].dtype == np.uint8
    if not train:
        np.testing.assert_array_equal(found["raw"], value)


def test_resize_keeps_what_has_its_size():
    value = rgba()[..., :3]
    np.testing.assert_array_equal(run(image.resize, value, size=16)["value"], value)


def encoded(value, format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(value).save(file, format, **options)
    return file.getvalue()


def test_decode_gives_the_pixels_of_a_file():
    value = rgba()
    np.testing.assert_array_equal(run(image.decode, encoded(value), mode="RGBA"), value)
    np.testing.assert_array_equal(
        run(image.decode, encoded(value[..., :3]), train=False), value[..., :3]
    )
    with pytest.raises(Fault, match="16 × 16 pixels; at most 255"):
        run(image.decode, encoded(value), most_pixels=255)


@pytest.mark.parametrize(
    "least, side", [(None, 80), (60, 80), (35, 40), (30, 30), (15, 20), (1, 10)]
)
def test_decode_leaves_the_shorter_side_as_many_pixels_as_asked_for(least, side):
    picture = np.broadcast_to(np.arange(80, dtype=np.uint8)[:, None, None], (80, 160, 3))
    assert run(image.decode, encoded(picture, "JPEG"), least=least).shape == (side, 2 * side, 3)
    assert run(image.decode, encoded(picture), least=least).shape == (80, 160, 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_resize_fits_another_shape(fit, format):
    """A bright square on black, in a picture twice as wide as high."""
    picture = np.zeros((96, 192, 3), np.uint8)
    picture[24:72, 72:120] = 250
    want = np.full((24, 24), 255) if fit == "pad" else np.zeros((24, 24))
    if fit == "pad":
        want[6:18] = 0
    high, wide = {"squash": (12, 6), "crop": (12, 12), "pad": (6, 6)}[fit]
    top, left = 12 - high // 2, 12 - wide // 2
    want[top : top + high, left : left + wide] = 250
    whole = {"squash": (96, 192), "crop": (96, 96), "pad": (192, 192)}[fit]
    for value in (picture, encoded(picture, format)):
        found = run(image.resize, value, train=False, size=24, fit=fit)
        assert found["value"].shape == (24, 24, 3)
        off = np.abs(found["value"].astype(float) - want[..., None])
        assert np.median(off) <= 2 and off.mean() < 16  # edges are soft
        least = {"squash": 4, "crop": 4, "pad": 8}[fit]
        small = least if isinstance(value, bytes) and format == "JPEG" else 1
        assert found["raw"].shape[:2] == tuple(n // small for n in whole)


@quick
@given(seed=seeds)
def test_resize_is_antialiased(seed):
    """Half the size: each pixel is the mean of four with the weights of a triangle."""
    value = rgba(seed)[..., :3]
    found = run(image.resize, value, size=8)["value"]
    weights = np.array([1, 3, 3, 1]) / 8
    for y, x in ((1, 1), (3, 4), (6, 6)):
        part = value[2 * y - 1 : 2 * y + 3, 2 * x - 1 : 2 * x + 3].astype(float)
        want = np.einsum("yxc,y,x->c", part, weights, weights)
        assert np.abs(found[y, x] - want).max() <= 1
