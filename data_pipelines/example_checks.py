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
    if isinstance(part, Mapping) and isinstance(blank, Mapping):
        if part.keys() != blank.keys():
            return f"{name} has {sorted(part)}, in other records {sorted(blank)}"
        for key in part:
            if key != "raw" and (found := difference(part[key], blank[key], key)):
                return found
        return None
    if isinstance(part, str) and isinstance(blank, str):
        return None
    if isinstance(part, Mapping) or isinstance(blank, Mapping):
        return f"{name} is {_described(part)}, in other records {_described(blank)}"
    ours, theirs = np.asarray(part), np.asarray(blank)
    if ours.shape == theirs.shape and ours.dtype == theirs.dtype:
        return None
    if (found := _described(ours)) == (other := _described(theirs)):
        return None
    return f"{name} is {found}, in other records {other}"


def _described(part: Any) -> str:
    if isinstance(part, Mapping):
        return f"the parts {sorted(part)}"
    array = np.asarray(part)
    kind = "text" if array.dtype.kind in "USO" else array.dtype
    return f"{kind} {array.shape}"
