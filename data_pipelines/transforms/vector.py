"""Vectors that another model or a person made: teacher embeddings, scores, measurements."""

from typing import Any

import numpy as np

from data_pipelines import drawn
from data_pipelines.faults import Fault
from data_pipelines.floats import floats


def value(
    value: Any, *, rng: np.random.Generator, train: bool, length: int = 1
) -> dict[str, np.ndarray]:
    """So many numbers as they are: a number, a list, an array or the bytes of a .npy file.

    Returns:
        `value` (length,) float32; in evaluation `raw`, the curve as a picture.

    Raises:
        Fault: `bad_vector` (no numbers, or not `length` of them) or `nan_vector`.
    """
    vector_D = floats(value, "vector").reshape(-1)
    if len(vector_D) != length:
        raise Fault("bad_vector", f"it has {len(vector_D)} numbers, not {length}")
    if not np.isfinite(vector_D).all():
        raise Fault("nan_vector", "some of its numbers are NaN or infinite")
    made = {"value": vector_D}
    return made if train else made | {"raw": drawn.curves(vector_D[:, None])}
