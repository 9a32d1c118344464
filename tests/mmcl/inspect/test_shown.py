"""Pictures and words of what a tower gets."""

import numpy as np

from mmcl.inspect.shown import MOST, WIDEST, heat_map, shown


def test_a_picture_has_the_pixels_that_the_model_gets():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    found = shown({"value": pixels, "raw": pixels[:2]})
    assert len(found.pictures) == 1 and found.words == ""
    np.testing.assert_array_equal(found.pictures[0], pixels)


def test_what_is_transparent_is_white_and_grey_is_grey():
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (shown(clear).pictures[0] == 255).all()
    grey = np.full((2, 2, 1), 7, np.uint8)
    assert shown(grey).pictures[0].shape == (2, 2, 3) and (shown(grey).pictures[0] == 7).all()


def test_views_are_pictures_and_the_rest_words():
    views = {
        "value": np.zeros((2, 4, 4, 3), np.uint8),
        "boxes": np.ones((2, 4), np.float32),
        "flipped": np.array([True, False]),
        "local": {"value": np.zeros((9, 2, 2, 3), np.uint8)},
    }
    found = shown(views)
    assert len(found.pictures) == 2 + 1 + MOST  # boxes are a small heat map
    assert "flipped: bool 2" in found.words and "9 pictures" in found.words


def test_text_is_its_words_and_how_many_places_it_takes():
    ids = {"value": np.zeros(5, np.int32), "mask": np.arange(5) < 3, "raw": "a dog"}
    assert shown(ids) == ([], "a dog · 3 of 5 places")


def test_vectors_and_scores_are_told_in_numbers():
    assert shown({"value": np.float32([1, 2, -3])}).words == "value: float32 3, -3 … 2"
    assert shown(np.float32(0.25)).words == "value: 0.25"


def test_a_signal_has_time_from_left_to_right_and_its_first_channel_below():
    signal = np.zeros((4, 60), np.float32)
    signal[3, 0] = 1.0  # last moment, first channel
    picture = heat_map(signal)
    assert picture.shape == (60, 4, 3)
    brightest = np.unravel_index(picture.sum(axis=2).argmax(), (60, 4))
    assert brightest == (59, 3)
    assert heat_map(np.ones((10 * WIDEST + 1, 2))).shape[1] <= WIDEST
