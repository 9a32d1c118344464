"""Numbers as formats hold them, lists, arrays or a file of NumPy, as one array of floats."""

import io
import numbers
from typing import Any

import numpy as np

from data_pipelines.faults import Fault

NPY = b"\x93NUMPY"


def floats(value: Any, what: str) -> np.ndarray:
    """A float32 array of the same shape; None inside a list is NaN.

    Args:
        value: a number, nested lists of numbers, an array, or the bytes of a .npy file.
        what: `vector`, `series`, ...: what the record's fault is called after.

    Raises:
        Fault: `bad_<what>`: these are no numbers, lists inside are of different lengths, or the
            file is damaged.
    """
    if isinstance(value, bytes):
        value = loaded(value, what)
    try:
        array = np.asarray(value)
    except ValueError:
        raise Fault(f"bad_{what}", "its lists are of different lengths") from None
    if array.dtype == object:
        odd = next((one for one in array.flat if not _number(one)), None)
        if odd is not None:
            raise Fault(f"bad_{what}", f"it holds a {type(odd).__name__} where a number should be")
    elif array.dtype.kind not in "biuf":
        raise Fault(f"bad_{what}", f"it holds {array.dtype.name} where numbers should be")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def loaded(value: bytes, what: str) -> np.ndarray:
    """The array in the bytes of a .npy file.

    Raises:
        Fault: `bad_<what>`: there is none.
    """
    if not value.startswith(NPY):
        raise Fault(f"bad_{what}", f"its {len(value)} bytes are no .npy file")
    try:
        array: np.ndarray = np.lib.format.read_array(io.BytesIO(value), allow_pickle=False)
    except (ValueError, OSError, MemoryError) as error:
        raise Fault(f"bad_{what}", f"its .npy file is damaged: {error}") from error
    return array


def _number(one: Any) -> bool:
    return one is None or isinstance(one, numbers.Real | np.bool_)
