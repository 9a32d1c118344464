"""`mmcl bench data`: how quickly each format is read, beside torch's DataLoader with webdataset."""

import contextlib
import importlib.util
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.bench.pictures import FORMATS, Picture, Section
from mmcl.bench.row import Failed
from mmcl.bench.side import Setup, Side, Speed, Task

OURS = (Setup(0, 2), Setup(0, 3), Setup(2, 1))  # that are tried; the quickest is measured
THEIRS = (Setup(1), Setup(2))
DECODES = ("full", "best")
INSTALL = "pip install torch webdataset"
Say = Callable[[str], None]


class Row(NamedTuple):
    """How quickly one format is read; medians, and None where not known."""

    format: str
    decode: str  # "full": both sides decode all of a file by Pillow; "best": each as it can
    size: int
    batch: int
    records_per_s: float | None = None
    workers: int | None = None
    threads: int | None = None
    cpu_ms: float | None = None  # processor time of a record: steadier on a busy machine
    baseline_records_per_s: float | None = None
    baseline_workers: int | None = None
    baseline_cpu_ms: float | None = None
    times: float | None = None  # median over pairs of ours / baseline


def chosen(names: Sequence[str]) -> list[str]:
    """The formats of these names; nothing for all.

    Raises:
        InputError: a name that there is not, with the nearest.
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(f"--formats: there is no '{name}'.{nearest(name, FORMATS)}")
    return list(names) or list(FORMATS)


def missing() -> list[str]:
    """Which packages of the other side are not installed."""
    return [name for name in ("torch", "webdataset") if importlib.util.find_spec(name) is None]


def written(folder: Path, pictures: list[Picture], formats: Sequence[str]) -> dict[str, Section]:
    """The pictures in each format, and as tars for the other side."""
    sections = {}
    for name in dict.fromkeys(["webdataset", *formats]):
        (folder / name).mkdir()
        sections[name] = FORMATS[name](folder / name, pictures)
    return sections


def rows(
    sections: dict[str, Section],
    formats: Sequence[str],
    *,
    size: int,
    batch: int,
    batches: int,
    repeats: int,
    note: Say,
    ours: Sequence[Setup] = OURS,
    theirs: Sequence[Setup] = THEIRS,
) -> list[Row]:
    """A row for each way to decode and each format; `note` hears what cannot be measured.

    The sides take turns, so that what else the machine does hits both.
    """
    lacking = missing()
    if lacking:
        note(f"the other side is left out: no {' and no '.join(lacking)}; {INSTALL}")
    made = []
    for decode in DECODES:
        with contextlib.ExitStack() as ends:
            baseline, their_setup = None, None
            if not lacking:
                task = Task(sections["webdataset"], decode, size, batch)
                try:
                    baseline = ends.enter_context(Side("webdataset", task))
                    their_setup = _best(baseline, theirs, batches)
                except Failed as why:
                    note(f"webdataset with torch, {decode}: {why}")
                    baseline = None
            for name in formats:
                row = Row(name, decode, size, batch)
                try:
                    with Side("ours", Task(sections[name], decode, size, batch)) as side:
                        setup = _best(side, ours, batches)
                        pairs = [
                            (
                                side.run(setup, batches),
                                baseline.run(their_setup, batches)
                                if baseline and their_setup
                                else None,
                            )
                            for _ in range(repeats)
                        ]
                    row = _row(row, setup, their_setup, pairs)
                except Failed as why:
                    note(f"{name}, {decode}: {why}")
                made.append(row)
    return made


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=None, pad_edge=False)
    for column in ("format", "decode"):
        made.add_column(column)
    for column in (
        "records/s",
        "threads",
        "CPU ms",
        "webdataset/s",
        "workers",
        "CPU ms",
        "times",
    ):
        made.add_column(column, justify="right")
    for row in rows:
        made.add_row(
            row.format,
            row.decode,
            _shown(row.records_per_s, ",.0f"),
            _shown(row.threads, "d"),
            _shown(row.cpu_ms, ".2f"),
            _shown(row.baseline_records_per_s, ",.0f"),
            _shown(row.baseline_workers, "d"),
            _shown(row.baseline_cpu_ms, ".2f"),
            _shown(row.times, ".2f"),
        )
    return made


def _best(side: Side, setups: Sequence[Setup], batches: int) -> Setup:
    if len(setups) == 1:
        return setups[0]
    return max(setups, key=lambda setup: side.run(setup, batches).records_per_s)


def _row(
    row: Row, setup: Setup, theirs: Setup | None, pairs: Sequence[tuple[Speed, Speed | None]]
) -> Row:
    mine = [pair[0] for pair in pairs]
    row = row._replace(
        records_per_s=statistics.median(speed.records_per_s for speed in mine),
        workers=setup.workers,
        threads=setup.threads,
        cpu_ms=statistics.median(speed.cpu_ms for speed in mine),
    )
    both = [(one, other) for one, other in pairs if other is not None]
    if theirs is None or not both:
        return row
    return row._replace(
        baseline_records_per_s=statistics.median(other.records_per_s for _, other in both),
        baseline_workers=theirs.workers,
        baseline_cpu_ms=statistics.median(other.cpu_ms for _, other in both),
        times=statistics.median(one.records_per_s / other.records_per_s for one, other in both),
    )


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else f"{value:{how}}"
