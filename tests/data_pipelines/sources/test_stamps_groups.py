import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from data_pipelines.sources.stamps_groups import groups, thumbnail


def far(n: int) -> np.ndarray:
    """Pictures that no two of are alike."""
    return np.random.default_rng(0).random((n, 8, 8, 4), np.float32)


@given(st.lists(st.sets(st.integers(0, 6), max_size=3), min_size=1, max_size=12))
def test_a_key_joins_all_that_have_it(keys):
    found = groups(keys, far(len(keys)))
    reach = np.array([[bool(a & b) or i == j for j, b in enumerate(keys)]
                      for i, a in enumerate(keys)])  # fmt: skip
    for _ in keys:
        reach = reach @ reach
    for i, row in enumerate(reach):
        assert found[i] == np.flatnonzero(row)[0]


def test_near_pictures_are_kin_mirrored_too():
    pictures = far(6)
    pictures[3] = np.clip(pictures[0] + 0.05, 0, 1)
    pictures[5] = pictures[1][:, ::-1]
    assert groups([()] * 6, pictures) == [0, 1, 2, 0, 4, 1]
    pictures[3] = np.clip(pictures[0] + 0.2, 0, 1)
    assert groups([()] * 6, pictures) == [0, 1, 2, 3, 4, 1]


def drawn(colour: str, shape: str, box: tuple[int, ...], size=(90, 60)) -> Image.Image:
    picture = Image.new("RGBA", size)
    getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
    return picture


def test_thumbnails_do_not_see_margins_or_sizes():
    small = thumbnail(drawn("red", "ellipse", (5, 5, 45, 45)))
    large = thumbnail(drawn("red", "ellipse", (100, 20, 340, 260), size=(400, 300)))
    assert small.shape == (24, 24, 4) and small.dtype == np.float32
    assert np.sqrt(np.mean((small - large) ** 2)) < 0.05
    assert small[12, 12].tolist() == [1, 0, 0, 1]
    assert small[0, 0, 3] < 0.1


def test_thumbnails_tell_white_from_black_and_shapes_apart():
    pictures = [
        drawn(colour, shape, (5, 5, 45, 45))
        for colour in ("white", "black", "green")
        for shape in ("ellipse", "rectangle")
    ]
    pictures += [picture.convert("P") for picture in pictures[-1:]]  # as some PNG files are
    thumbnails = np.stack([thumbnail(picture) for picture in pictures])
    for a, b in itertools.combinations(thumbnails[:6], 2):
        assert np.sqrt(np.mean((a - b) ** 2)) > 0.15
    assert groups([()] * 7, thumbnails) == [0, 1, 2, 3, 4, 5, 5]


def test_colours_where_nothing_is_drawn_do_not_count():
    hidden = drawn("red", "ellipse", (5, 5, 45, 45))
    pixels = np.asarray(hidden).copy()
    pixels[pixels[..., 3] == 0, :3] = 255
    np.testing.assert_array_equal(thumbnail(hidden), thumbnail(Image.fromarray(pixels)))
