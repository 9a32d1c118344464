"""A contact sheet: pictures, captions and scores on cards, in the order given."""

import bisect
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font
from PIL import Image, ImageDraw, ImageFont

PAPER, CARD, EDGE = "#f3f3f0", "#ffffff", "#dcdcd7"
INK, QUIET = "#1f2328", "#767b83"

Item = tuple[np.ndarray | None, str, float | None]  # picture, caption, score


def contact_sheet(
    items: Sequence[Item], *, title: str, columns: int = 8, size: int = 96
) -> Image.Image:
    """Draws items as cards, row by row.

    Args:
      items: for each a picture, uint8 (H, W, 3) or (H, W, 4), or None; a caption in any script; a
        score or None.
      title: one line above the cards.
      columns: cards in a row; half as many and twice as wide where no item has a picture.
      size: side of a picture in pixels; letters grow with it.

    Returns:
      An RGB picture.
    """
    pictures = any(picture is not None for picture, _, _ in items)
    scores = any(score is not None for _, _, score in items)
    letter, pad = max(10, size // 8), max(6, size // 10)
    line, margin = round(1.3 * letter), 2 * pad
    columns = columns if pictures else math.ceil(columns / 2)
    inner_w = size if pictures else 2 * size + 3 * pad
    inner_h = size + pad + 2 * line if pictures else 4 * line  # picture and caption
    card_w, card_h = inner_w + 2 * pad, inner_h + 2 * pad + scores * line
    across = min(columns, max(1, len(items)))
    down = math.ceil(len(items) / across)

    head = 3 * letter // 2
    font = _font(title, head, bold=True)
    title = _wrap(title, font, columns * (card_w + pad) - pad, most=1)[0]
    width = 2 * margin + max(across * (card_w + pad) - pad, math.ceil(font.getlength(title)))
    top = margin + 2 * head
    sheet = Image.new("RGB", (width, top + down * (card_h + pad) - pad + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, INK, font)

    for i, (picture, caption, score) in enumerate(items):
        x = margin + i % across * (card_w + pad)
        y = top + i // across * (card_h + pad)
        card = (x, y, x + card_w - 1, y + card_h - 1)
        draw.rounded_rectangle(card, pad, CARD, EDGE)
        middle, y, free = x + card_w // 2, y + pad, inner_h
        if score is not None:
            font = _font("0", letter)
            draw.text((middle, card[3] - pad), f"{score:.3f}", QUIET, font, anchor="mb")
        if picture is not None:
            scaled = _scale(picture, size)
            sheet.paste(scaled, (middle - scaled.width // 2, y + (size - scaled.height) // 2))
            y, free = y + size + pad, free - size - pad
        font = _font(caption, letter)
        lines = _wrap(caption, font, card_w - pad, most=free // line)
        if picture is None:
            y += (free - len(lines) * line) // 2
        for n, text in enumerate(lines):
            draw.text((middle, y + n * line + line // 2), text, INK, font, anchor="mm")
    return sheet


def _scale(picture: np.ndarray, size: int) -> Image.Image:
    """On white, its longer side `size`; an enlarged pixel stays a square with sharp edges."""
    image = Image.fromarray(picture).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, CARD), image).convert("RGB")
    enlarge = math.ceil(size / max(image.size))
    fit = [max(1, round(side * size / max(image.size))) for side in image.size]
    image = image.resize([enlarge * side for side in image.size], Image.Resampling.NEAREST)
    return image.resize(fit, Image.Resampling.LANCZOS)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """At most `most` lines, broken at spaces, after - ] ), or inside a word longer than a line."""
    rest, lines = " ".join(text.split()), list[str]()
    while len(lines) < most - 1 and (end := _fitting(rest, font, width)) < len(rest):
        stop = max(rest.rfind(" ", 0, end + 1), *(rest.rfind(mark, 0, end) + 1 for mark in "-])"))
        lines.append(rest[: stop if stop > 0 else end])
        rest = rest[len(lines[-1]) :].lstrip()
    if _fitting(rest, font, width) < len(rest):
        dots = math.ceil(font.getlength("…"))
        rest = rest[: _fitting(rest, font, width - dots)].rstrip() + "…"
    return [*lines, rest]


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many first characters of text fit into width, at least one."""
    ends = range(1, len(text) + 1)
    too_long = bisect.bisect(ends, False, key=lambda end: font.getlength(text[:end]) > width)
    return max(1, too_long)


def _font(text: str, size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans or, for scripts it lacks, the font of this machine with most of the letters."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    best = str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))
    needed = frozenset(ord(letter) for letter in text if letter.isprintable())
    if not needed <= _letters(best):
        for path in sorted(font_manager.findSystemFonts()):
            if len(needed & _letters(path)) > len(needed & _letters(best)):
                best = path
    return _load(best, size)


@functools.cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font can draw; none where it cannot be opened or scaled."""
    try:
        _load(path, 16)
        return frozenset(ft2font.FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
