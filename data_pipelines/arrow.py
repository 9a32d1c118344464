"""What Arrow says, as records hold it: bytes, strings, numbers, NumPy arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

Value = Callable[[pa.Scalar], Any]


def reader(kind: pa.DataType, file: Callable[[str], Any] | None = None) -> Value:
    """How a scalar of this type becomes a value; null becomes None.

    Lists of numbers become arrays (copies, so that a value keeps no table alive), also nested ones
    if they are rectangular. A struct of `bytes` and `path`, by which Hugging Face stores pictures
    and sounds, becomes its bytes, or else what `file` says of its path.
    """
    if is_file(kind):
        return lambda value: _file(value.as_py(), file)
    if is_list(kind):
        within = kind
        while is_list(within):
            within = within.value_type
        if types.is_integer(within) or types.is_floating(within):
            dtype = np.dtype(within.to_pandas_dtype())
            return lambda value: _array(value, dtype)
        one = reader(kind.value_type, file)
        return lambda value: None if not value.is_valid else [one(item) for item in value.values]
    return lambda value: value.as_py()


def is_file(kind: pa.DataType) -> bool:
    """Whether it is Hugging Face's struct of a picture or sound."""
    return types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {
        "bytes",
        "path",
    }


def is_list(kind: pa.DataType) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _file(value: dict[str, Any] | None, file: Callable[[str], Any] | None) -> Any:
    if value is None or value["bytes"] is not None or value["path"] is None:
        return value and value["bytes"]
    return file(value["path"]) if file is not None else None


def _array(value: pa.Scalar, dtype: np.dtype) -> Any:
    if not value.is_valid:
        return None
    if not is_list(value.type.value_type) and not value.values.null_count:
        return np.array(value.values.to_numpy(zero_copy_only=False), dtype)
    listed = value.as_py()
    try:
        return np.array(listed, dtype)
    except (TypeError, ValueError):  # ragged, or with nulls in it
        return listed
