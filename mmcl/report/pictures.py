"""The pictures of a page: small, and each stored once however often it is shown."""

import base64
import io

import numpy as np
from PIL import Image


class Pictures:
    """Collects uint8 (H, W, 3) pictures as CSS classes; `css` then holds every picture once."""

    def __init__(self) -> None:
        self._pictures: dict[str, Image.Image] = {}
        self._classes: dict[tuple[tuple[int, ...], bytes], str] = {}

    def add(self, pixels_HxWx3: np.ndarray) -> str:
        """The CSS class that shows this picture; equal pictures share one."""
        key = (pixels_HxWx3.shape, pixels_HxWx3.tobytes())
        name = self._classes.setdefault(key, f"p{len(self._classes)}")
        self._pictures[name] = Image.fromarray(pixels_HxWx3)
        return name

    def css(self, max_bytes: int) -> str:
        """One rule a picture, all of them in `max_bytes` if a side of 24 pixels is small enough."""
        for side in (96, 64, 40, 24):
            rules: list[str] = []
            room = max_bytes
            for name, picture in self._pictures.items():
                rules.append(f".{name}{{background-image:url({data_uri(picture, side)})}}")
                room -= len(rules[-1])
                if room < 0 and side > 24:
                    break
            else:
                break
        return "\n".join(rules)


def data_uri(picture: Image.Image, side: int) -> str:
    """A PNG of at most 256 colours, its longer side at most `side` pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    small.quantize(256, Image.Quantize.FASTOCTREE).save(png, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
