"""What a value must not be, before and after its transforms, if it is to stand in a batch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def empty(value: Any) -> bool:
    """A string without a letter; a list, a mapping, bytes or an array without anything."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, np.ndarray):
        return not value.size
    return isinstance(value, bytes | list | tuple | Mapping) and not value


def finite(part: Any) -> bool:
    """Whether every number of an example's part is; `raw`, which is only shown, may be anything."""
    if isinstance(part, Mapping):
        return all(finite(value) for key, value in part.items() if key != "raw")
    if isinstance(part, float):
        return math.isfinite(part)
    if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in "fc":
        return bool(np.isfinite(part).all())
    return True


def difference(part: Any, blank: Any, name: str = "it") -> str | None:
    """In which shape, type or keys an example differs from `blank`, in words; None: in none."""
    if isinstance(part, Mapping) or isinstance(blank, Mapping):
        ours, theirs = (sorted(x) if isinstance(x, Mapping) else "one value" for x in (part, blank))
        if ours != theirs:
            return f"{name} has {ours}, in other records {theirs}"
        found = (difference(part[key], blank[key], key) for key in part if key != "raw")
        return next(filter(None, found), None)
    if isinstance(part, str) or isinstance(blank, str):
        return None
    ours, theirs = (_described(np.asarray(x)) for x in (part, blank))
    return None if ours == theirs else f"{name} is {ours}, in other records {theirs}"


def _described(array: np.ndarray) -> str:
    kind = "text" if array.dtype.kind in "USO" else array.dtype
    return f"{kind} {array.shape}"
