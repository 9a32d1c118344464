"""What the engine chose for each call, to be written down and used again.

with choices(saved) as made:      # saved: what an earlier run made, or {}
    train_step.lower(...)         # every pair_reduce traced here follows `saved` where it can
json.dump(made, file)
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax

from pallas_kernels.pair_reduce.layout import Comm, Layout
from pallas_kernels.pair_reduce.sweep import length

Implementation = Literal["reference", "xla", "pallas_tpu", "pallas_gpu"]


class Choice(NamedTuple):
    """Who computes a call, and how. Nothing here changes a value beyond rounding."""

    impl: Implementation
    comm: Comm | None
    blocks: tuple[int, int]


class _Listener(NamedTuple):
    saved: dict[str, Any]
    made: dict[str, Any]
    impl: Implementation | None


_current: contextvars.ContextVar[_Listener | None] = contextvars.ContextVar("choices", default=None)


@contextlib.contextmanager
def choices(
    saved: dict[str, Any] | None = None, impl: Implementation | None = None
) -> Iterator[dict[str, Any]]:
    """Collects what is chosen for the calls traced inside: a dict that JSON can hold.

    Args:
        saved: earlier choices; a call of the same tile, sizes and devices follows its own.
        impl: who computes the calls that name nobody and have no earlier choice; None: the engine
            chooses.
    """
    made: dict[str, Any] = {}
    token = _current.set(_Listener(dict(saved or {}), made, impl))
    try:
        yield made
    finally:
        _current.reset(token)


def earlier(call: str) -> Choice | None:
    """What was chosen for this call before, if somebody kept it and it can still be had."""
    current = _current.get()
    if current is None or call not in current.saved:
        return None
    kept = current.saved[call]
    known = kept["impl"] in get_args(Implementation)
    if not known or kept["comm"] not in (None, *get_args(Comm)):
        return None
    return Choice(kept["impl"], kept["comm"], (kept["blocks"][0], kept["blocks"][1]))


def preferred() -> Implementation | None:
    """Who is to compute a call that names nobody and has no earlier choice."""
    current = _current.get()
    return None if current is None else current.impl


def note(call: str, choice: Choice) -> None:
    """Write a choice down, if somebody listens."""
    current = _current.get()
    if current is not None:
        current.made[call] = {**choice._asdict(), "blocks": list(choice.blocks)}


def call_name(tile: Any, rows: Any, cols: Any, layout: Layout) -> str:
    """A name for a call that is the same in every run of a program, such as
    "mmcl.objectives.infonce._tile 4096x4096 float32[512] data8".
    """
    function = getattr(tile, "func", tile)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', 'tile')}"
    split = "x".join(f"{axis}{size}" for axis, size in zip(layout.axes, layout.sizes))
    vectors = {
        f"{x.dtype}{list(x.shape[1:])}".replace(" ", ""): None
        for x in jax.tree.leaves((rows, cols))
        if x.ndim > 1
    }
    words = [name, f"{length(rows)}x{length(cols)}", ",".join(vectors), split]
    return " ".join(word for word in words if word)
