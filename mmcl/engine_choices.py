"""What the pair engine chose in a run, kept in its folder: a resume computes exactly alike.

engine.json holds, by kind of device, the implementation, communication and block sizes of every
call. Another version of mmcl or a measurement may choose otherwise; a run that began does not.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from data_pipelines.errors import InputError
from pallas_kernels.pair_reduce import choices

FILE = "engine.json"


@contextlib.contextmanager
def kept_choices(workdir: Path, device_kind: str) -> Iterator[Callable[[], None]]:
    """Inside, the engine chooses as it did before in this folder.

    Yields:
        a function that writes down what was chosen since; it costs nothing where nothing was.

    Raises:
        InputError: engine.json is damaged.
    """
    file = workdir / FILE
    by_kind = _read(file)
    with choices(by_kind.get(device_kind)) as made:

        def keep() -> None:
            known = by_kind.get(device_kind, {})
            if made.keys() <= known.keys():
                return
            by_kind[device_kind] = {**known, **made}
            if jax.process_index() == 0:
                part = file.with_suffix(".part")
                part.write_text(json.dumps(by_kind, indent=1))
                os.replace(part, file)

        yield keep


def _read(file: Path) -> dict[str, dict]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise InputError(
            f"{file} is damaged ({error}); delete it, and the run goes on with the engine's own "
            "choices."
        ) from error
