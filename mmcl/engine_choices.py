"""What the pair engine chose in a run, kept in its folder: a resume computes exactly alike.

engine.json holds, by kind of device, the implementation, communication and block sizes of every
call. Another version of mmcl or a measurement may choose otherwise; a run that began does not.
`mmcl bench loss --autotune` writes a file of the same form, with which a new run can begin.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from data_pipelines.errors import InputError
from pallas_kernels.pair_reduce import checks, choices
from pallas_kernels.pair_reduce.choices import Choice

FILE = "engine.json"
MEASURED = "delete it, and measure again with `mmcl bench loss --autotune`"  # if it is damaged
ByKind = dict[str, dict[str, Any]]  # kind of device -> call -> choice


@contextlib.contextmanager
def kept_choices(
    workdir: Path, device_kind: str, given: ByKind | None = None
) -> Iterator[Callable[[], None]]:
    """Inside, the engine chooses as it did before in this folder, else as is given, else by itself.

    Args:
        given: choices to begin with; where they lack a call of the run, a line on stderr says so.

    Yields:
        a function that writes down what was chosen since; it costs nothing where nothing was.

    Raises:
        InputError: engine.json is damaged, or cannot be read.
    """
    file = workdir / FILE
    by_kind = read(file, "delete it, and the run goes on with the engine's own choices")
    measured = (given or {}).get(device_kind, {})
    with choices({**measured, **by_kind.get(device_kind, {})}) as made:

        def keep() -> None:
            known = by_kind.get(device_kind, {})
            new = made.keys() - known.keys()
            if not new:
                return
            by_kind[device_kind] = {**known, **made}
            if jax.process_index() == 0:
                lacking = ", ".join(sorted(new - measured.keys()))
                if given is not None and lacking:
                    line = f"--engine has nothing for {lacking} on {device_kind}; the engine chose."
                    print(f"mmcl: {line}", file=sys.stderr)
                _write(file, by_kind)

        yield keep


def measured_choices(file: Path) -> ByKind:
    """Choices that a run is to begin with.

    Raises:
        InputError: the file is missing or damaged, or cannot be read.
    """
    if not file.exists():
        raise InputError(f"--engine: there is no {file}; `mmcl bench loss --autotune` writes one.")
    return read(file, MEASURED)


def add(file: Path, device_kind: str, measured: dict[str, Any]) -> None:
    """Write choices into a file, beside and over what it holds; its folder is made.

    Raises:
        InputError: the file is damaged, or cannot be read or written.
    """
    by_kind = read(file, MEASURED)
    by_kind[device_kind] = {**by_kind.get(device_kind, {}), **measured}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, by_kind)
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}); give another place with --engine."
        ) from error


def read(file: Path, advice: str) -> ByKind:
    """What a file holds; {} where there is none.

    Args:
        advice: what to do about a damaged one.

    Raises:
        InputError: it is damaged, or cannot be read.
    """
    try:
        by_kind = json.loads(file.read_text())
        for calls in by_kind.values():
            for kept in calls.values():
                choice = Choice(kept["impl"], kept["comm"], tuple(kept["blocks"]))
                checks.blocks(choice.blocks)
        return by_kind
    except FileNotFoundError:
        return {}
    except (AttributeError, LookupError, TypeError):
        raise InputError(f"{file} is damaged (it holds no choices); {advice}.") from None
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); {advice}.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from error


def _write(file: Path, by_kind: ByKind) -> None:
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(by_kind, indent=1))
    os.replace(part, file)
