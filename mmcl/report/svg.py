"""A matplotlib figure as inline SVG that takes its colours and its font from the page.

The `<svg>` element refers to nothing outside itself. A colour of `PALETTE` is written as the CSS
variable of that name, so that one plot serves a light and a dark page.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

PALETTE = {
    "ink": "#1f2328",
    "muted": "#6b7280",
    "grid": "#e5e7eb",
    "c0": "#2f6fb3",
    "c1": "#d9791f",
    "c2": "#2a9471",
    "c3": "#9a5fb5",
    "c4": "#b3493f",
    "c5": "#7a7f1e",
}
COLOURS = [PALETTE[f"c{i}"] for i in range(6)]

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmcl",
    "text.parse_math": False,
    "text.color": PALETTE["ink"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": PALETTE["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": PALETTE["muted"],
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "legend.labelspacing": 0.25,
}


def svg(draw: Callable[[Figure], None], width: float, height: float, label: str) -> Markup:
    """A plot of `width` by `height` inches, drawn by `draw`; `label` is its text for the blind."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the page's fonts have it
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing, dpi=144)
    return for_page(drawn.getvalue(), label)


def for_page(document: str, label: str) -> Markup:
    """A matplotlib SVG document as an element of a page: the page's font and colours, own ids."""
    own = f"s{zlib.crc32(document.encode()):08x}-"
    body = document[document.index(">", document.index("<svg")) + 1 :]
    size = document[document.index("viewBox") :].split('"')[1]
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{own}{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}", body)
    body = re.sub(r"font-family: [^;\"]+", "font-family: inherit", body)
    for name, colour in PALETTE.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"\s+", " ", body)
    return Markup(f'<svg viewBox="{size}" role="img" aria-label="{escape(label)}">{body}')
