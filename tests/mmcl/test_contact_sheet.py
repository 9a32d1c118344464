import glob
import math
import os

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import ImageColor

from mmcl import contact_sheet as module
from mmcl.contact_sheet import contact_sheet

RED, GREEN, BLUE, BLACK = (220, 0, 0), (0, 180, 0), (0, 0, 200), (0, 0, 0)
INK, PAPER = ImageColor.getrgb(module.INK), ImageColor.getrgb(module.PAPER)


def flat(colour, h=8, w=8):
    return np.full((h, w, len(colour)), colour, np.uint8)


def where(sheet, colour):
    """Bounding box (left, top, right, bottom) of the pixels of exactly this colour."""
    y, x = np.nonzero((np.asarray(sheet) == colour).all(axis=-1))
    return (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else None


def test_pictures_stand_in_reading_order():
    items = [(flat(colour), "x", 0.5) for colour in (RED, GREEN, BLUE)]
    sheet = contact_sheet(items, title="three", columns=2, size=40)
    red, green, blue = (where(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert sheet.mode == "RGB"
    assert red[1] == green[1] and red[2] < green[0]
    assert blue[0] == red[0] and blue[1] > red[3]
    for left, top, right, bottom in (red, green, blue):
        assert (right - left, bottom - top) == (40, 40)


@pytest.mark.parametrize("h, w, expected", [(10, 20, (20, 40)), (90, 30, (40, 13))])
def test_pictures_keep_their_shape(h, w, expected):
    left, top, right, bottom = where(
        contact_sheet([(flat(RED, h, w), "", None)], title="", size=40), RED
    )
    assert (bottom - top, right - left) == expected


def test_enlarged_pixels_have_sharp_edges():
    picture = np.array([[RED, GREEN], [GREEN, RED]], np.uint8)
    sheet = contact_sheet([(picture, "", None)], title="", size=40)
    left, top, right, bottom = where(sheet, RED)
    square = np.asarray(sheet)[top:bottom, left:right]
    np.testing.assert_array_equal(square, picture.repeat(20, axis=0).repeat(20, axis=1))


def test_transparent_is_white():
    picture = flat((*RED, 0))
    picture[:4, :, 3] = 255
    sheet = contact_sheet([(picture, "", None)], title="", size=40)
    left, top, right, bottom = where(sheet, RED)
    below = np.asarray(sheet)[bottom + 3 : top + 40, left:right]
    assert (right - left, below.shape[0] > 10) == (40, True)
    assert (below == 255).all()


def test_caption_and_score_stand_below_the_picture_inside_the_card():
    plain = contact_sheet([(flat(RED), "", 0.25)], title="", size=40)
    sheet = contact_sheet([(flat(RED), "a dog", 0.25)], title="", size=40)
    assert plain.size == sheet.size
    y, x = np.nonzero((np.asarray(plain) != np.asarray(sheet)).any(axis=-1))
    left, top, right, bottom = where(sheet, RED)
    assert len(y) and y.min() > bottom and x.min() >= left - 2 and x.max() < right + 2
    other = contact_sheet([(flat(RED), "a dog", 0.75)], title="", size=40)
    y_score = np.nonzero((np.asarray(other) != np.asarray(sheet)).any(axis=-1))[0]
    assert len(y_score) and y_score.min() > y.max()


def test_a_card_without_a_picture_gives_its_room_to_the_caption():
    caption = "one two three four five six seven eight"
    first = contact_sheet([(flat(RED), caption, None)], title="", size=60)
    second = contact_sheet([(None, caption, None), (flat(RED), "", None)], title="", size=60)
    top, bottom = where(second, INK)[1::2]
    assert bottom - top > 1.5 * (where(first, INK)[3] - where(first, INK)[1])


def test_text_alone_takes_wide_cards():
    items = [(None, f"caption {i}", 0.5) for i in range(5)]
    sheet = contact_sheet(items, title="t", columns=8, size=60)
    pictures = contact_sheet([(flat(RED), "c", 0.5)] * 5, title="t", columns=4, size=60)
    card_tops = np.asarray(sheet)[:, sheet.width // 10] != PAPER
    assert sheet.width > 1.5 * pictures.width
    assert np.count_nonzero(np.diff(card_tops.any(axis=-1))) >= 4  # two rows: 4 + 1 cards


def test_no_items_leave_the_title():
    assert where(contact_sheet([], title="nothing found"), INK)


def test_the_title_never_widens_a_full_sheet():
    items = [(flat(RED), "", None)] * 3
    short = contact_sheet(items, title="t", columns=3, size=40)
    long = contact_sheet(items, title="a title without end " * 20, columns=3, size=40)
    assert long.size == short.size
    single = contact_sheet(items[:1], title="fits in three columns"[:12], columns=3, size=40)
    assert where(single, INK)[2] <= single.width - where(single, INK)[0] + 2


texts = st.text(st.sampled_from("ab, 漢é\n-)"), max_size=60)


@hypothesis.given(texts, st.integers(20, 120), st.integers(1, 4))
@hypothesis.settings(max_examples=200, deadline=None)
def test_wrapped_lines_fit_and_lose_nothing_but_the_end(text, width, most):
    font = module._font("a", 12)
    lines = module._wrap(text, font, width, most)
    assert 1 <= len(lines) <= most
    assert all(font.getlength(line) <= width for line in lines)
    words, shown = "".join(text.split()), "".join("".join(lines).split())
    if shown.endswith("…"):
        assert words.startswith(shown[:-1]) and len(lines) == most and len(shown) <= len(words)
    else:
        assert shown == words


def test_words_stay_whole_where_they_fit():
    font = module._font("a", 12)
    width = math.ceil(font.getlength("hot drink"))
    assert module._wrap("hot drink tea", font, width, 3) == ["hot drink", "tea"]
    assert module._wrap("hot drinks tea", font, width, 3) == ["hot", "drinks", "tea"]
    assert module._wrap("(hot)drinks tea", font, width, 3) == ["(hot)", "drinks", "tea"]


def test_scripts_without_letters_in_dejavu_use_a_font_of_the_machine(monkeypatch):
    fonts = pytest.importorskip("manimgx_fonts")
    found = glob.glob(os.path.join(os.path.dirname(fonts.__file__), "*.ttf"))
    broken = __file__  # no font at all
    monkeypatch.setattr(module.font_manager, "findSystemFonts", lambda: [broken, *found])
    dejavu = module._font("dog собака كلب", 12)
    assert dejavu.getname()[0] == "DejaVu Sans"
    assert module._font("dog", 12, bold=True).getname() == ("DejaVu Sans", "Bold")
    assert module._font("कुत्ता", 12).getname()[0] == "Noto Sans Devanagari"
    assert module._font("𓀀", 12) is dejavu  # no font has it
    monkeypatch.setattr(module.font_manager, "findSystemFonts", lambda: [])
    assert module._font("कुत्ता", 12) is dejavu
