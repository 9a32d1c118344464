"""`mmcl bench loss --roofline KIND`: the least time on a device that need not be here."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.table import Table

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.bench import cases
from mmcl.bench.row import reason
from pallas_kernels.pair_reduce.on_chip import CHIPS, KNOWN_AS, Chip
from pallas_kernels.pair_reduce.roofline import roofline


class Row(NamedTuple):
    """The bound of one loss, forward and backward, by a data sheet: nothing of it is measured."""

    case: str
    batch: int
    dim: int
    dtype: str
    device: str
    flops_over_2BBD: float  # noqa: N815  products in the traced program
    products_s: float
    memory_s: float
    roofline_s: float


def chip(kind: str) -> Chip:
    """The data sheet of a device kind.

    Raises:
        InputError: there is none, with the nearest name.
    """
    kind = KNOWN_AS.get(kind, kind)
    if kind not in CHIPS:
        known = ", ".join((*KNOWN_AS, *CHIPS))
        raise InputError(
            f"--roofline: there is no '{kind}'.{nearest(kind, [*KNOWN_AS, *CHIPS])} Known: {known}."
        )
    return CHIPS[kind]


def rows(
    names: Sequence[str],
    batch: int,
    dim: int,
    dtype: str,
    kind: str,
    note: Callable[[str], None],
) -> list[Row]:
    """A row for each loss; what cannot be traced is noted and left out."""
    found = []
    for name in names:
        try:
            case = cases.shapes(name, batch, dim, dtype)
            bound = roofline(case.function, case.args, chip(kind))
        except InputError:
            raise
        except Exception as error:  # whatever it is, the other losses are traced
            note(f"{name}: {reason(error)}")
            continue
        unit = 2.0 * batch * batch * dim
        products = bound.products_s * chip(kind).bfloat16 / unit
        found.append(Row(name, batch, dim, dtype, kind, products, *bound, max(bound)))
    return found


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=None, pad_edge=False)
    made.add_column("loss")
    for column in ("products", "products ms", "memory ms", "roofline ms"):
        made.add_column(column, justify="right")
    for row in rows:
        times = (row.products_s, row.memory_s, row.roofline_s)
        made.add_row(row.case, f"{row.flops_over_2BBD:.2f}", *(f"{1000 * s:.3g}" for s in times))
    return made
