"""Five corruptions of signals, spectrograms, series and vectors at five severities.

| | severity 1 to 5 |
|---|---|
| `noise` | Gaussian, 0.1 to 1 of the standard deviation |
| `dropout` | 5 to 50 % of the values become the mean |
| `gain` | 1.25 to 4 times the values |
| `offset` | 0.25 to 2 standard deviations added |
| `shift` | moved along the longest axis by 2 to 40 % of it; what leaves at the end comes in again |

Each is a function `f(value, severity, rng)`; mean and deviation are those of all values of the
record.
"""

from collections.abc import Callable

import numpy as np


def noise(value: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.1, 0.2, 0.4, 0.7, 1.0)[severity - 1]
    return value + deviation * value.std() * rng.normal(size=value.shape)


def dropout(value: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.05, 0.1, 0.2, 0.35, 0.5)[severity - 1]
    return np.where(rng.random(value.shape) < share, value.mean(), value)


def gain(value: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return (1.25, 1.5, 2.0, 3.0, 4.0)[severity - 1] * value


def offset(value: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return value + (0.25, 0.5, 1.0, 1.5, 2.0)[severity - 1] * value.std()


def shift(value: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    axis = int(np.argmax(value.shape))
    share = (0.02, 0.05, 0.1, 0.2, 0.4)[severity - 1]
    return np.roll(value, max(1, round(share * value.shape[axis])), axis)


FLOATS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    function.__name__: function for function in (noise, dropout, gain, offset, shift)
}
