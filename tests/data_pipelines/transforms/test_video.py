"""Film transforms: which frames, which square of them."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import films
from data_pipelines.errors import InputError
from data_pipelines.transforms import video

seeds = st.integers(0, 10**6)
quick = settings(max_examples=40, deadline=None)
SAMPLINGS = ["uniform", "stride", "segments"]


def pixels(n):
    """Frames that tell their number, by their grey."""
    value = np.empty((n, 32, 48, 3), np.uint8)
    value[:] = (4 * np.arange(n))[:, None, None, None]
    return value


def number(pixels_HxWx3):
    return round(int(pixels_HxWx3[8, 8, 1]) / 4)


def run(value, seed=0, train=True, **options):
    options = {"frames": 4, "size": 16} | options
    return video.decode(value, rng=np.random.default_rng(seed), train=train, **options)


def places(n, frames, sampling, stride=1, seed=0, train=True):
    rng = np.random.default_rng(seed)
    return video.places(n, frames, sampling, stride, rng, train).tolist()


@quick
@given(
    n=st.integers(1, 50),
    frames=st.integers(1, 12),
    stride=st.integers(1, 9),
    sampling=st.sampled_from(SAMPLINGS),
    seed=seeds,
    train=st.booleans(),
)
def test_places_are_as_many_as_there_are_and_in_order(n, frames, stride, sampling, seed, train):
    found = places(n, frames, sampling, stride, seed, train)
    enough = len(range(0, n, stride)) if sampling == "stride" else n
    assert len(found) == min(frames, enough)
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[0] >= 0 and found[-1] < n
    if len(found) < frames:
        assert found == list(range(0, n, stride if sampling == "stride" else 1))
    elif sampling == "stride":
        assert set(np.diff(found)) <= {stride}
    elif sampling == "segments" and n % frames == 0:
        assert [place // (n // frames) for place in found] == list(range(frames))


def test_evaluation_takes_these():
    assert places(10, 4, "uniform") == places(10, 4, "uniform", train=False) == [0, 3, 6, 9]
    assert places(9, 1, "uniform", train=False) == [4]
    assert places(10, 3, "segments", train=False) == [1, 4, 7]
    assert places(9, 3, "segments", train=False) == [1, 4, 7]
    assert places(11, 3, "stride", 2, train=False) == [3, 5, 7]
    assert places(4, 3, "stride", 2, train=False) == [0, 2]


def test_training_draws_evenly():
    starts = [places(9, 3, "stride", 2, seed)[0] for seed in range(1000)]
    np.testing.assert_allclose(np.bincount(starts), 200, atol=60)
    found = np.array([places(12, 3, "segments", seed=seed) for seed in range(1000)])
    for segment in range(3):
        counts = np.bincount(found[:, segment] - 4 * segment)
        np.testing.assert_allclose(counts, 250, atol=70)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.15


@quick
@given(n=st.integers(1, 9), frames=st.integers(1, 9), seed=seeds, train=st.booleans())
def test_too_few_frames_are_followed_by_the_last(n, frames, seed, train):
    found = run(pixels(n), seed, train, frames=frames, array_rate=2.0)
    assert found.keys() == {"value", "mask", "time"} | (set() if train else {"raw"})
    assert found["value"].shape == (frames, 16, 16, 3) and found["value"].dtype == np.uint8
    there = min(n, frames)
    assert found["mask"].tolist() == [True] * there + [False] * (frames - there)
    assert found["time"].dtype == np.float32
    shown = [number(image) for image in found["value"]]
    assert shown == (2 * found["time"]).astype(int).tolist()
    assert shown[there:] == [shown[there - 1]] * (frames - there)


def test_an_animation_goes_the_whole_way():
    images = [Image.fromarray(image) for image in pixels(20)]
    written = io.BytesIO()
    images[0].save(written, "WEBP", save_all=True, append_images=images[1:], duration=40)
    for train in (True, False):
        found = run(written.getvalue(), 3, train, sampling="segments", frames=5)
        shown = [number(image) for image in found["value"]]
        np.testing.assert_allclose(found["time"], np.array(shown) / 25, atol=1e-6)
        assert [place // 4 for place in shown] == [0, 1, 2, 3, 4]
    assert found["raw"].shape == (128, 128, 3) and found["raw"].dtype == np.uint8


def wide(n=3):
    """Columns tell how far right they are, rows (in red) how far down."""
    value = np.zeros((n, 40, 100, 3), np.uint8)
    value[..., 1] = 2 * np.arange(100)
    value[..., 0] = 2 * np.arange(40)[:, None]
    return value


def test_evaluation_sees_the_whole_middle():
    found = run(wide(), train=False, size=40, flip=1.0)["value"]
    np.testing.assert_array_equal(found[:3], wide()[:, :, 30:70])


@quick
@given(seed=seeds)
def test_training_sees_one_square_of_all_frames(seed):
    found = run(wide(), seed, size=20, scale=(0.5, 0.8))["value"].astype(float) / 2
    assert (found == found[:1]).all()
    left, right = found[0, 10, [1, -2], 1]
    top, bottom = found[0, [1, -2], 10, 0]
    side = (right - left) / 17 * 20  # between the middles of 18 of 20 pixels
    assert abs((bottom - top) / 17 * 20 - side) < 1.5
    assert 0.5 * 40 - 1.5 < side < 0.8 * 40 + 1.5
    assert left >= 0 and right <= 99 and top >= 0 and bottom <= 39


def test_squares_are_placed_everywhere_and_flipped_together():
    found = [run(wide(1), s, size=8, scale=(0.5, 0.5))["value"][0, 4, 4] / 2 for s in range(300)]
    down_N, right_N, _ = np.transpose(found)
    assert right_N.min() < 13 and right_N.max() > 87  # the middle of a square is 10 from its side
    assert down_N.min() < 13 and down_N.max() > 27
    flipped = 0
    for seed in range(100):
        plain, found = (run(wide(), seed, flip=p)["value"] for p in (0.0, 0.5))
        mirrored = not (found == plain).all()
        flipped += mirrored
        np.testing.assert_array_equal(found, plain[:, :, ::-1] if mirrored else plain)
    assert 30 < flipped < 70


def test_resizing_is_antialiased():
    value = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    found = run(value, train=False, size=20, frames=1)["value"][0]
    weights = np.array([1, 3, 3, 1]) / 8
    part = value[0, 9:13, 19:23].astype(float)
    assert np.abs(found[5, 10] - np.einsum("yxc,y,x->c", part, weights, weights)).max() <= 1


def test_a_film_that_changes_its_size_is_brought_to_its_first(monkeypatch):
    real = films.frames

    def growing(value, choose, rate):
        first, *rest = real(value, choose, rate)
        return [first, *[(picture.resize((200, 80)), time) for picture, time in rest]]

    monkeypatch.setattr(films, "frames", growing)
    found = run(wide(), train=False, size=40)["value"]
    assert np.abs(found[1].astype(int) - found[0]).max() <= 2


@pytest.mark.parametrize(
    "options",
    [{"frames": 0}, {"size": 0}, {"stride": 0}, {"scale": (0.0, 1.0)}, {"scale": (1.0, 0.5)}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="should be 1 or more"):
        run(wide(), **options)
