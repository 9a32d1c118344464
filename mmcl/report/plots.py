"""The plots of the report, each an inline SVG: what was logged, and the shape of the space."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, ImageOps

from mmcl.evals.embedded import Embedded
from mmcl.report.svg import COLOURS, PALETTE, svg

Line = tuple[np.ndarray, np.ndarray]  # steps, values

LINE_POINTS = 400  # of a curve; a longer one is drawn as means of equal runs of rows
HEAT_ITEMS = 32
MAP_POINTS = 500
MAP_LINES = 40
DASHES: list[Any] = ["-", (0, (3, 1.5)), (0, (1, 1.5)), (0, (5, 1, 1, 1))]


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
    dash = dict(zip(ks, DASHES * len(ks)))

    grey = PALETTE["muted"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (direction, k), (step, value) in recall.items():
            colour = COLOURS[directions.index(direction) % len(COLOURS)]
            axes.plot(step, 100 * value, color=colour, linestyle=dash[k])
        over_steps(axes, "queries answered (%)")
        axes.set_ylim(bottom=0)
        colours = zip(COLOURS * len(directions), directions)
        key = [Line2D([], [], color=colour, label=direction) for colour, direction in colours]
        for k in ks:
            key.append(Line2D([], [], color=grey, linestyle=dash[k], label=f"recall@{k}"))
        if chance is not None:
            label = f"chance@{ks[0]}"
            key.append(axes.axhline(100 * chance, color=grey, lw=1, ls=DASHES[2], label=label))
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
        for label in scale.get_xticklabels():
            label.set_horizontalalignment("left")

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
    records = spaced(len(embedded.ids), MAP_POINTS // len(embedded.z))
    xy = {modality: (z[records] - centre) @ plane_Dx2 for modality, z in embedded.z.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        for a, b in gaps:
            joined = spaced(len(records), max(4, MAP_LINES // len(gaps)))
            ends_2xLx2 = np.stack([xy[a][joined], xy[b][joined]])
            axes.plot(*ends_2xLx2.transpose(2, 0, 1), color=PALETTE["muted"], lw=0.5, alpha=0.5)
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
    step, value = (np.array([of[run].mean() for run in runs]) for of in (step, value))
    return step, value


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
        words = [shorten(shown[record], 26) for record in records]
        turn = 90 if side == "x" else 0
        labels.set_ticks(np.arange(n), words, size=6.5, color=PALETTE["ink"], rotation=turn)
        return
    labels.set_ticks([])
    tiles = [tile(np.asarray(shown[record])) for record in records]
    for row in (0, 1):  # pictures two cells wide, in two rows
        start, length = (row - 0.5) / n, 2 * len(tiles[row::2]) / n
        away, width = (2 * row + 0.2) / n, 2 / n
        top = (start, 1 + away, length, width)
        left = (-away - width, 1 - start - length, width, length)
        strip = axes.inset_axes(top if side == "x" else left)
        strip.axis("off")
        line = np.concatenate(tiles[row::2], axis=1 if side == "x" else 0)
        strip.imshow(line, aspect="auto", interpolation="none")


def tile(pixels_HxWx3: np.ndarray, side: int = 24) -> np.ndarray:
    """The picture in the middle of a white square."""
    picture = ImageOps.pad(Image.fromarray(pixels_HxWx3), (side, side), color="white")
    return np.asarray(picture)


def groups(axes: Axes, embedded: Embedded, records: np.ndarray) -> None:
    """Thin lines between groups, and their names at the right."""
    if "group" not in embedded.label_names:
        return
    group = embedded.labels["group"][records]
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
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
    colour = np.broadcast_to(to_rgb(COLOURS[0]), (*s.shape, 3))
    return np.concatenate([colour, s[..., None]], axis=-1)


def shorten(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
