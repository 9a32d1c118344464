"""A picture file in memory: its header at once, its pixels when asked for, as many as are needed.

Pillow reads headers and all formats. JPEG pixels come from libjpeg-turbo by way of simplejpeg,
straight into an array and, where fewer will do, scaled down by 2, 4 or 8 inside the inverse cosine
transform, where it costs least.
"""

import contextlib
import dataclasses
import io
import math
from typing import Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from data_pipelines.faults import Fault

MOST_PIXELS = 2**26  # more than any camera's picture needs, less than a decompression bomb has
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

Mode = Literal["RGB", "RGBA"]


class PictureFile:
    """An encoded picture whose header was read.

    Args:
      data: the file.
      most_pixels: a picture of more is refused before it is decoded.

    Attributes:
      height, width: of the picture upright, in pixels.

    Raises:
      Fault: `unreadable_image`: no picture in a format of `FORMATS`; `huge_image`.
    """

    def __init__(self, data: bytes, most_pixels: int = MOST_PIXELS):
        self._data = data
        try:
            self._opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Fault("huge_image", str(error)) from None
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            raise Fault("unreadable_image", _said(error, "no picture")) from error
        across, down = self._opened.size
        if across * down > most_pixels:
            raise Fault("huge_image", f"{across} × {down} pixels; at most {most_pixels} are read")
        self._turned = _orientation(self._opened)
        self.height, self.width = (across, down) if self._turned > 4 else (down, across)

    def pixels(self, scale: float = 1.0, mode: Mode = "RGB") -> np.ndarray:
        """Upright pixels, uint8 (H, W, 3 or 4); of an animation the first frame.

        What is transparent lies on white in RGB. 16 bits become 8 by leaving out the lower ones.

        Args:
          scale: where the file allows it, height and width are these shares of the whole, or the
            next greater ones that can be had.

        Raises:
          Fault: `truncated_image`, `unreadable_image`.
        """
        found = self._jpeg(scale) if self._opened.format in ("JPEG", "MPO") else None
        if found is None:
            try:
                found = _with_mode(self._opened, mode)
            except Fault:
                raise
            except Exception as error:
                cut = isinstance(error, EOFError) or "truncated" in str(error)
                kind = "truncated_image" if cut else "unreadable_image"
                raise Fault(kind, _said(error, self._opened.format or "picture")) from error
        elif mode == "RGBA":
            found = np.dstack([found, np.full(found.shape[:2], 255, np.uint8)])
        return _upright(found, self._turned)

    def _jpeg(self, scale: float) -> np.ndarray | None:
        """None for what libjpeg-turbo does not turn into RGB (CMYK) or complains about: Pillow
        knows which complaints matter."""
        if self._opened.mode not in ("RGB", "L"):
            return None
        across, down = self._opened.size
        fewest = [max(1, min(side, math.ceil(scale * side))) for side in (down, across)]
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(
                self._data, min_height=fewest[0], min_width=fewest[1], min_factor=2
            )
        return None


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Pixels that are there already, as a `PictureFile` gives them."""

    value: np.ndarray  # uint8 (H, W, 3 or 4)

    @property
    def height(self) -> int:
        return self.value.shape[0]

    @property
    def width(self) -> int:
        return self.value.shape[1]

    def pixels(self, scale: float = 1.0) -> np.ndarray:
        """All of them, whatever the scale."""
        return self.value


def opened(value: bytes | np.ndarray) -> PictureFile | Decoded:
    """A picture, be it a file or pixels.

    Raises:
      Fault: `unreadable_image`, `huge_image`; `wrong_dtype`: not bytes nor uint8 (H, W, 3 or 4).
    """
    if isinstance(value, bytes):
        return PictureFile(value)
    if not isinstance(value, np.ndarray):
        found = type(value).__name__
    elif value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (3, 4):
        return Decoded(value)
    else:
        found = f"{value.dtype} {value.shape}"
    raise Fault("wrong_dtype", f"a picture is bytes or uint8 (H, W, 3 or 4), not {found}")


def _orientation(opened: Image.Image) -> int:
    """How the camera was held: 1 to 8 as in EXIF, 1 where nothing tells."""
    if "exif" not in opened.info and "xmp" not in opened.info:
        return 1
    with contextlib.suppress(Exception):  # a broken note is no broken picture
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return turned if turned in range(1, 9) else 1
    return 1


def _upright(stored: np.ndarray, turned: int) -> np.ndarray:
    if turned > 4:
        stored = stored.swapaxes(0, 1)
    mirrored, upside_down = turned in (2, 3, 6, 7), turned in (3, 4, 7, 8)
    return stored[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _with_mode(opened: Image.Image, mode: Mode) -> np.ndarray:
    if opened.mode.startswith("I"):
        grey = np.asarray(opened)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise Fault("unreadable_image", f"grey values of more than 16 bits in {opened.format}")
        opened = Image.fromarray((grey >> 8).astype(np.uint8))
    elif opened.mode == "F":
        raise Fault("unreadable_image", f"grey values without a range in {opened.format}")
    if mode == "RGB" and opened.has_transparency_data:
        above = opened.convert("RGBA")
        ground = Image.new("RGBA", above.size, "white")
        opened = Image.alpha_composite(ground, above)
    return np.asarray(opened.convert(mode))


def _said(error: Exception, what: str) -> str:
    words = " ".join(str(error).split())
    return f"{what}: {type(error).__name__}" + (f": {words[:200]}" if words else "")
