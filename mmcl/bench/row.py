"""One row of `mmcl bench loss`, measured in a process of its own.

    python -m mmcl.bench.row CASE IMPL BATCH DIM DTYPE REPEATS

prints the row as a line of JSON; or a traceback, as its last line why there is no row, and exits
with 1.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple, cast

from data_pipelines.errors import InputError

DENSE = {"reference": 8, "open_clip": 6}  # B×B float32 arrays that it may have at once


class Row(NamedTuple):
    """What one implementation of one loss costs, forward and backward; None where not known."""

    case: str
    impl: str
    batch: int
    dim: int
    dtype: str  # of the embeddings
    cpu_s: float | None = None  # of all threads
    wall_s: float | None = None
    matmul_cpu_s: float | None = None  # of one B×B×D product in the same process
    peak_mib: float | None = None  # growth of the process above its inputs, gradients included
    temp_mib: float | None = None  # what the compiler sets aside, gradients not included
    flops_over_2BBD: float | None = None  # noqa: N815  products in the traced program


class Failed(Exception):
    """There is no row, and why."""


def measured(case: str, impl: str, batch: int, dim: int, dtype: str, repeats: int) -> Row:
    """The row, from a new process.

    Raises:
        Failed: the process could not do it; one line says why.
    """
    arrays, free = DENSE.get(impl, 0), _free_bytes()
    if free is not None and arrays * 4 * batch**2 > free:
        need = arrays * 4 * batch**2 / 2**30
        raise Failed(f"may need {need:.1f} GiB, and {free / 2**30:.1f} are free.")
    words = [sys.executable, "-m", __name__, case, impl, *map(str, (batch, dim, dtype, repeats))]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise Failed(f"its process was ended by {name}; perhaps memory ran out.")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Failed(said[-1] if said else f"its process ended with code {done.returncode}.")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, InputError) else f"{type(error).__name__}: {lines[0]}"


def _free_bytes() -> int | None:
    """Memory that can be had without swapping; None where only Linux could say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), None)


def _main(case: str, impl: str, *words: str) -> None:
    batch, dim, repeats, dtype = int(words[0]), int(words[1]), int(words[3]), words[2]
    from pallas_kernels.pair_reduce.benchmark import one_heap

    one_heap()
    from mmcl.bench import cases, open_clip
    from pallas_kernels.pair_reduce.choices import Implementation

    if impl == "open_clip":
        cost = open_clip.run(case, batch, dim, repeats, dtype)
    else:
        cost = cases.run(case, cast(Implementation, impl), batch, dim, repeats, dtype)
    row = Row(
        case,
        impl,
        batch,
        dim,
        dtype,
        cost.cpu_s,
        cost.wall_s,
        cost.unit_cpu_s,
        cost.peak_mib,
        cost.temp_mib,
        cost.products,
    )
    print(json.dumps(row._asdict()))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        _main(*sys.argv[1:])
    except Exception as error:  # whatever it is, its row is empty and the others go on
        traceback.print_exc()
        print(reason(error), file=sys.stderr)
        sys.exit(1)
