"""The plots of the report, as inline SVG that takes its colours and its font from the page.

Every plot is one `<svg>` element that refers to nothing outside itself. A colour of `PALETTE` is
written as the CSS variable of that name, so that one plot serves a light and a dark page.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, ImageOps

from mmcl.evals.embedded import Embedded

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

STYLE = {
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

Line = tuple[np.ndarray, np.ndarray]  # steps, values

LINE_POINTS = 400  # of a curve; a longer one is drawn as means of equal runs of steps
HEAT_ITEMS = 32
MAP_RECORDS = 250
MAP_JOINED = 40


def curves(lines: Mapping[str, Line], ylabel: str, *, smooth: bool = False) -> Markup:
    """Logged values over steps, one line a name; `smooth` lays a running mean over each."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for colour, (name, (step, value)) in zip(COLOURS * len(lines), lines.items()):
            step, value = thinned(step, value)
            strong = running_mean(value) if smooth else value
            if smooth:
                axes.plot(step, value, color=colour, alpha=0.3, linewidth=1)
            axes.plot(step, strong, color=colour, label=name)
        over_steps(axes, ylabel)
        if len(lines) > 1:
            axes.legend()

    return svg(draw, 3.5, 2.3, f"{ylabel} over steps")


def recall_curves(recall: Mapping[tuple[str, int], Line], chance: float | None) -> Markup:
    """Recall@K over steps, a colour a direction and a dash pattern a K; chance of the largest K."""
    directions = list(dict.fromkeys(direction for direction, _ in recall))
    ks = sorted({k for _, k in recall}, reverse=True)
    dashes = ["-", (0, (3, 1.5)), (0, (1, 1.5)), (0, (5, 1, 1, 1))]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (direction, k), (step, value) in recall.items():
            colour = COLOURS[directions.index(direction) % len(COLOURS)]
            axes.plot(step, 100 * value, color=colour, linestyle=dashes[ks.index(k) % len(dashes)])
        over_steps(axes, "queries answered (%)")
        axes.set_ylim(bottom=0)
        colours = zip(COLOURS * len(directions), directions)
        key = [Line2D([], [], color=colour, label=direction) for colour, direction in colours]
        for dash, k in zip(dashes * len(ks), ks):
            key.append(Line2D([], [], color=PALETTE["muted"], linestyle=dash, label=f"recall@{k}"))
        if chance is not None:
            grey = {"color": PALETTE["muted"], "linewidth": 1, "linestyle": dashes[2]}
            key.append(axes.axhline(100 * chance, label=f"chance@{ks[0]}", **grey))
        figure.legend(handles=key, loc="outside right upper")

    return svg(draw, 5.3, 2.5, "Recall over steps")


def heat_map(embedded: Embedded, row: str, column: str) -> Markup | None:
    """Cosine similarity of every row item with every column item of matched pairs.

    Pairs have distinct concepts and lie in the order of their group where there is one. None for
    fewer than two pairs.
    """
    records = heat_records(embedded)
    n = len(records)
    if n < 2:
        return None
    s_NxN = embedded.z[row][records] @ embedded.z[column][records].T
    low, high = float(s_NxN.min()), float(s_NxN.max())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.imshow(shade((s_NxN - low) / max(high - low, 1e-9)), interpolation="none")
        axes.xaxis.tick_top()
        ticks(axes, "y", embedded.shown[row], records)
        ticks(axes, "x", embedded.shown[column], records)
        groups(axes, embedded, records)
        scale = axes.inset_axes((0, -0.045, 0.3, 0.018))
        scale.imshow(shade(np.linspace(0, 1, 128)[None]), aspect="auto", extent=(low, high, 0, 1))
        scale.grid(False)
        scale.spines[:].set_visible(False)
        scale.set_yticks([])
        scale.set_xticks([low, high], [f"{low:.2f}", f"{high:.2f}  cosine similarity"], size=7)
        for label, side in zip(scale.get_xticklabels(), ("left", "left")):
            label.set_horizontalalignment(side)

    return svg(draw, 6.6, 5.7, f"Similarity of {row} and {column} of {n} matched pairs")


def modality_map(embedded: Embedded) -> tuple[Markup, dict[tuple[str, str], float]]:
    """The embeddings of all modalities on their first two principal components, and the gaps.

    The gap of two modalities is the distance between the means of their embeddings (Liang et al.
    2022, arXiv 2203.02053), in the full space and over all records.
    """
    mean = {modality: z.mean(axis=0) for modality, z in embedded.z.items()}
    gaps = {(a, b): float(np.linalg.norm(mean[a] - mean[b])) for a, b in combinations(mean, 2)}
    every = np.concatenate(list(embedded.z.values())).astype(np.float64)
    centre = every.mean(axis=0)
    variance, axes_DxD = np.linalg.eigh((every - centre).T @ (every - centre))
    plane_Dx2 = axes_DxD[:, :-3:-1]
    plane_Dx2 = plane_Dx2 * np.sign(plane_Dx2[np.abs(plane_Dx2).argmax(axis=0), [0, 1]])
    share = variance[::-1] / max(variance.sum(), 1e-12)
    records = spaced(len(embedded.ids), MAP_RECORDS)
    xy = {modality: (z[records] - centre) @ plane_Dx2 for modality, z in embedded.z.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        for a, b in combinations(xy, 2):
            for i in spaced(len(records), MAP_JOINED):
                ends = np.stack([xy[a][i], xy[b][i]])
                axes.plot(*ends.T, color=PALETTE["muted"], linewidth=0.5, alpha=0.5)
        for colour, (modality, points) in zip(COLOURS * len(xy), xy.items()):
            axes.plot(*points.T, "o", color=colour, markersize=3, alpha=0.75, mew=0, label=modality)
        axes.set_xlabel(f"first component, {share[0]:.0%} of the variance")
        axes.set_ylabel(f"second component, {share[1]:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside upper left", ncols=len(xy), handletextpad=0.1)

    return svg(draw, 4.4, 4.4, "Embeddings of all modalities on two principal components"), gaps


def thinned(step: np.ndarray, value: np.ndarray) -> Line:
    """At most LINE_POINTS points: means over equal runs of logged values."""
    runs = np.array_split(np.arange(len(step)), min(len(step), LINE_POINTS))
    return np.array([step[run].mean() for run in runs]), np.array([value[run].mean() for run in runs])


def running_mean(value: np.ndarray) -> np.ndarray:
    """The mean over a window of a twentieth of the curve, shorter at its ends."""
    half = len(value) // 40
    return np.array([value[max(0, i - half) : i + half + 1].mean() for i in range(len(value))])


def over_steps(axes: Axes, ylabel: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.4g}"))


def spaced(n: int, at_most: int) -> np.ndarray:
    """Up to `at_most` of the numbers below n, evenly spaced."""
    return np.linspace(0, n - 1, min(n, at_most)).round().astype(int)


def heat_records(embedded: Embedded) -> np.ndarray:
    """Up to HEAT_ITEMS records of distinct concepts; of up to 8 groups, equally many of each."""
    _, first = np.unique(embedded.labels["concept"], return_index=True)
    first.sort()
    if "group" not in embedded.label_names:
        return first[spaced(len(first), HEAT_ITEMS)]
    group = embedded.labels["group"][first]
    names, sizes = np.unique(group, return_counts=True)
    largest = np.sort(names[np.argsort(-sizes, kind="stable")[:8]])
    chosen = [first[group == name] for name in largest]
    return np.concatenate([of[spaced(len(of), HEAT_ITEMS // len(largest))] for of in chosen])


def ticks(axes: Axes, side: str, shown: Sequence[Any], records: np.ndarray) -> None:
    """What is compared, along the x (top) or y (left) side: words, or a strip of pictures."""
    n = len(records)
    labels = axes.xaxis if side == "x" else axes.yaxis
    if isinstance(shown[records[0]], str):
        turned = {"rotation": 90} if side == "x" else {}
        words = [shorten(shown[record], 26) for record in records]
        labels.set_ticks(range(n), words, size=6.5, color=PALETTE["ink"], **turned)
        return
    labels.set_ticks([])
    tiles = [tile(np.asarray(shown[record])) for record in records]
    for row in (0, 1):  # pictures two cells wide, in two rows
        along, out, length = (row - 0.5) / n, 0.2 / n + 2 * row / n, 2 * len(tiles[row::2]) / n
        across = side == "x"
        box = (along, 1 + out, length, 2 / n) if across else (-out - 2 / n, 1 - along - length, 2 / n, length)
        strip = axes.inset_axes(box)
        strip.axis("off")
        strip.imshow(np.concatenate(tiles[row::2], axis=int(across)), interpolation="none")


def tile(pixels_HxWx3: np.ndarray, side: int = 28) -> np.ndarray:
    """The picture in the middle of a white square."""
    picture = ImageOps.pad(Image.fromarray(pixels_HxWx3), (side, side), color="white")
    return np.asarray(picture)


def groups(axes: Axes, embedded: Embedded, records: np.ndarray) -> None:
    """Thin lines between groups, and their names at the right."""
    if "group" not in embedded.label_names:
        return
    group = embedded.labels["group"][records]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts[1:], len(group))
    for start, end in zip(starts, ends):
        if start:
            axes.axhline(start - 0.5, color=PALETTE["muted"], linewidth=0.5)
            axes.axvline(start - 0.5, color=PALETTE["muted"], linewidth=0.5)
        name = shorten(embedded.label_names["group"][group[start]].replace("_", " "), 22)
        middle = (start + end - 1) / 2
        axes.text(len(group), middle, name, size=7, va="center", color=PALETTE["muted"])


def shade(s: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as the first colour, more opaque the higher: right on any background."""
    return np.concatenate([np.broadcast_to(to_rgb(COLOURS[0]), (*s.shape, 3)), s[..., None]], axis=-1)


def shorten(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


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
