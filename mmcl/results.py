"""The table of claims: for each experiment and metric what `mmcl compare` found last."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl import config as configs
from mmcl.compare import Compared
from mmcl.methods import header

HEAD = """# Results

What each experiment claims over the one that it is compared with, as `mmcl compare ... --claim`
measured it: mean ± standard deviation over the seeds, and the 95 % interval of the mean of the
paired differences (same seed, same order of data, same steps). A claim is shown where that interval
lies on its side of 0. The half width of an interval is the smallest effect that could have been
seen.

"""
COLUMNS: tuple[str, ...] = ("Method", "Experiment", "Against", "Claim", "Its", "Ours", "Ours − its")
COLUMNS += ("95 %", "Shown", "Command")


class Row(NamedTuple):
    """One claim; all as it is written."""

    method: str
    experiment: str
    against: str
    claim: str
    its: str
    ours: str
    difference: str
    interval: str
    shown: str
    command: str

    def told(self) -> str:
        """In a sentence."""
        verb = "is" if self.shown == "yes" else "is not"
        return f"'{self.claim}' {verb} shown: {self.difference} ({self.interval})."


def record(
    file: Path,
    a: str,
    b: str,
    changes: Sequence[tuple[str, str]],
    found: Sequence[Compared],
    claim: str,
) -> Row:
    """Write the row of a claim, in place of one of the same experiments and metric.

    Args:
        a, b: the experiments, FILE[:ARG]; the claim is b's.
        changes: those of the config that both were run with.
        claim: the metric that is larger; `-METRIC` where it is smaller.

    Raises:
        InputError: no such metric, or one seed only.
    """
    metric = claim.removeprefix("-")
    one = next((one for one in found if one.metric == metric), None)
    if one is None:
        raise InputError(
            f"--claim: no metric '{metric}'.{nearest(metric, [x.metric for x in found])}"
        )
    if len(one.a_N) < 2:
        raise InputError("--claim: one seed has no interval; take --seeds 3 or more.")
    row = _row(a, b, changes, one, claim)
    kept = [old for old in rows(file) if old[1:4] != row[1:4]]
    ordered = sorted([*kept, row], key=lambda row: (row.method, row.experiment, row.claim))
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, ordered)]
    file.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    return row


def rows(file: Path) -> list[Row]:
    """Those of a table that `record` wrote; none where there is none yet."""
    if not file.exists():
        return []
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (?!Method|---)", line)
    ]
    return [Row(*one) for one in cells]


def _row(a: str, b: str, changes: Sequence[tuple[str, str]], one: Compared, claim: str) -> Row:
    papers = header(configs.experiment_file(configs.split(b)[0])).papers
    lower = claim.startswith("-")
    shown = one.high < 0 if lower else one.low > 0
    words = ["mmcl", "compare", a, b, "--seeds", str(len(one.a_N)), f"--claim={claim}"]
    words += [f"--config.{key}={value}" for key, value in changes]
    return Row(
        method=", ".join(papers) or "none",
        experiment=b,
        against=a,
        claim=f"{one.metric.removeprefix('eval/')} is {'lower' if lower else 'higher'}",
        its=_mean_and_sd(one.a_N),
        ours=_mean_and_sd(one.b_N),
        difference=_number(one.difference, "+"),
        interval=f"{_number(one.low, '+')} to {_number(one.high, '+')}",
        shown="yes" if shown else "no",
        command=f"`{shlex.join(words)}`",
    )


def _mean_and_sd(values: Sequence[float]) -> str:
    return f"{_number(float(np.mean(values)))} ± {_number(float(np.std(values, ddof=1)))}"


def _number(x: float, sign: str = "") -> str:
    """Four decimals; of what is large none."""
    return f"{x:{sign},.0f}" if abs(x) >= 1000 else f"{x:{sign}.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
