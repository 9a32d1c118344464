"""`mmcl bench loss`: what each objective costs, in each implementation and beside open_clip."""

from collections.abc import Callable, Sequence
from typing import get_args

from rich.table import Table

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.bench import cases, open_clip
from mmcl.bench.row import Failed, Row, measured
from pallas_kernels.pair_reduce.api import Implementation
from pallas_kernels.pair_reduce.arg_specs import SPECS, Spec

DEFAULT = ("xla", "open_clip")
Say = Callable[[str], None]


def spec(name: str) -> Spec:
    """The sizes of a published training.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SPECS:
        raise InputError(f"--spec: there is no '{name}'.{nearest(name, SPECS)}")
    return SPECS[name]


def chosen(names: Sequence[str]) -> list[str]:
    """The cases of these names; nothing for all.

    Raises:
        InputError: a name that there is not, with the nearest.
    """
    _known("--cases", names, cases.offered())
    return list(names) or cases.default()


def plan(names: Sequence[str], impls: Sequence[str], note: Say) -> list[tuple[str, str]]:
    """Which (case, implementation) pairs will be measured; nothing for all, or the usual ones.

    open_clip has only its own losses; where it is not installed, `note` is told how to do that.

    Raises:
        InputError: a name that there is not, with the nearest.
    """
    listed = chosen(names)
    _known("--impl", impls, [*get_args(Implementation), "open_clip"])
    pairs = [
        (name, impl)
        for name in listed
        for impl in impls or DEFAULT
        if impl != "open_clip" or name in open_clip.LOSSES
    ]
    if not pairs:
        theirs = ", ".join(open_clip.LOSSES)
        raise InputError(f"--impl: open_clip has none of these losses, but {theirs}.")
    missing = open_clip.missing()
    if missing and any(impl == "open_clip" for _, impl in pairs):
        note(f"open_clip is left out: no {' and no '.join(missing)}; {open_clip.INSTALL}")
        pairs = [(name, impl) for name, impl in pairs if impl != "open_clip"]
    return pairs


def row(name: str, impl: str, batch: int, dim: int, dtype: str, repeats: int, note: Say) -> Row:
    """Measure one in its own process; where that fails, the row is empty and `note` hears why."""
    try:
        return measured(name, impl, batch, dim, dtype, repeats)
    except Failed as why:
        note(f"{name} {impl}: {why}")
        return Row(name, impl, batch, dim, dtype)


def table(rows: Sequence[Row]) -> Table:
    """The rows, and beside them how the processor time compares with that of the products alone."""
    made = Table(box=None, pad_edge=False)
    made.add_column("loss")
    made.add_column("impl")
    for column in ("CPU s", "wall s", "peak MiB", "temp MiB", "products", "CPU s / products"):
        made.add_column(column, justify="right")
    for row in rows:
        least = _times(row.flops_over_2BBD, row.matmul_cpu_s)
        made.add_row(
            row.case,
            row.impl,
            _shown(row.cpu_s, ".3g"),
            _shown(row.wall_s, ".3g"),
            _shown(row.peak_mib, ",.0f"),
            _shown(row.temp_mib, ",.0f"),
            _shown(row.flops_over_2BBD, ".2f"),
            _shown(_over(row.cpu_s, least), ".2f"),
        )
    return made


def comparisons(rows: Sequence[Row]) -> list[str]:
    """How our losses compare with open_clip's, a line each."""
    theirs = {row.case: row for row in rows if row.impl == "open_clip"}
    lines = []
    for row in rows:
        other = theirs.get(row.case)
        if other is None or row is other:
            continue
        cpu, peak = _over(row.cpu_s, other.cpu_s), _over(row.peak_mib, other.peak_mib)
        if cpu is not None and peak is not None:
            lines.append(
                f"{row.case}: {row.impl} / open_clip = {cpu:.2f} × CPU seconds, {peak:.3f} × peak"
            )
    return lines


def _known(option: str, names: Sequence[str], offered: Sequence[str]) -> None:
    for name in names:
        if name not in offered:
            raise InputError(f"{option}: there is no '{name}'.{nearest(name, offered)}")


def _times(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else f"{value:{how}}"
