"""How far two experiments are apart in every metric, as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmcl.compare import Compared
from mmcl.report.svg import COLOURS, PALETTE, STYLE

ROW = 0.24  # inches


def forest(compared: Sequence[Compared], a: str, b: str, file: Path) -> None:
    """A PNG file: a line for each metric, with the difference of each seed, the mean and its
    interval, in per cent of what A reaches, so that metrics of all sizes stand on one axis. Those
    that A leaves at 0 are left out, and intervals end at the edge, which is beyond every seed.
    """
    rows = [one for one in compared if np.mean(one.a_N)]
    place = np.arange(len(rows))[::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 1 + ROW * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        axes.axvline(0, color=PALETTE["muted"], linewidth=0.8)
        edge = 1.0
        for y, one in zip(place, rows):
            percent = 100 / abs(float(np.mean(one.a_N)))
            if not math.isnan(one.low):
                ends = [percent * one.low, percent * one.high]
                axes.plot(ends, [y, y], color=COLOURS[0], linewidth=2.4)
            each_N = percent * np.subtract(one.b_N, one.a_N)
            edge = max(edge, 1.2 * float(np.abs(each_N).max()))
            axes.plot(each_N, np.full(len(each_N), y), ".", color=PALETTE["muted"], markersize=3)
            axes.plot([percent * one.difference], [y], "o", color=COLOURS[0], markersize=4)
        axes.set_yticks(place, [one.metric.removeprefix("eval/") for one in rows])
        axes.set_ylim(-0.8, len(rows) - 0.2)
        axes.set_xlim(-edge, edge)
        axes.set_xlabel("B − A in per cent of A, with 95 % intervals")
        figure.suptitle(f"A  {a}\nB  {b}", x=0.01, ha="left", size=9)
        figure.savefig(file, dpi=144, facecolor="white", metadata={"Software": None})
