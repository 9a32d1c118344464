"""Kernels as ordinary programs, on any device: for tests.

with interpreted():                                       # quick, one device's worth of checking
    jax.jit(step)(...)
with interpreted(pltpu.InterpretParams(detect_races=True)):   # a simulated TPU
    ...
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

_current: contextvars.ContextVar[Any] = contextvars.ContextVar("interpreted", default=False)


@contextlib.contextmanager
def interpreted(how: Any = True) -> Iterator[None]:
    """Every kernel that is traced inside is interpreted.

    Args:
        how: what `pallas_call` takes as `interpret`.
    """
    token = _current.set(how)
    try:
        yield
    finally:
        _current.reset(token)


def interpretation() -> Any:
    """How a kernel that is traced now is to be interpreted; False: compiled."""
    return _current.get()
