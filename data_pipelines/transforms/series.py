"""Time-series transforms: from numbers over time to windows of static shape.

Every transform is a function `f(value, *, rng, train, **options) -> value`. Before `window` the
value is what the record holds: nested lists, an array or the bytes of a .npy file, (T,) of one
channel or (T, C). From `window` on it is `{"value": (L, C), "mask": (L,), ...}`, zero wherever
nothing was measured, and stays so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines import drawn
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.floats import floats


def resample(
    value: Any, *, rng: np.random.Generator, train: bool, from_rate: float, rate: float
) -> np.ndarray:
    """At another rate, by linear interpolation; between a number and a gap (NaN) there is a gap.

    Nothing is filtered: what is faster than half the new rate turns into something slower.

    Args:
        from_rate, rate: values a second, as they come and as they go.

    Returns:
        (T', C) float32, from the first value on, up to the last.

    Raises:
        Fault: `bad_series` or `empty_series`.
        InputError: a rate is not above 0.
    """
    if min(from_rate, rate) <= 0:
        raise InputError(f"series.resample: from_rate={from_rate}, rate={rate} should be above 0.")
    value_TxC = _series(value)
    n = len(value_TxC)
    count = int((n - 1) * rate / from_rate * (1 + 1e-9)) + 1  # the last counts where it is hit
    place_T = np.minimum(np.arange(count) * (from_rate / rate), n - 1)
    before_T = np.minimum(place_T.astype(int), max(0, n - 2))
    share_Tx1 = (place_T - before_T).astype(np.float32)[:, None]
    after_T = np.minimum(before_T + 1, n - 1)
    left_TxC = np.where(share_Tx1 < 1, (1 - share_Tx1) * value_TxC[before_T], 0)
    return left_TxC + np.where(share_Tx1 > 0, share_Tx1 * value_TxC[after_T], 0)


def window(
    value: Any,
    *,
    rng: np.random.Generator,
    train: bool,
    length: int,
    channels: int = 1,
    at: Literal["centre", "first"] = "centre",
    missing: Literal["fault", "mask"] = "fault",
) -> dict[str, np.ndarray]:
    """So many steps of a series: a random stretch in training, its centre or beginning else.

    A shorter series is followed by zeros.

    Args:
        missing: what NaN (or None in a list) says: a fault, or that nothing was measured there.

    Returns:
        `value` (length, channels) float32; `mask` (length,) bool, False behind the end; with
        `missing="mask"` also `known` (length, channels) bool, False where nothing was measured;
        in evaluation `raw`, the curves as a picture.

    Raises:
        Fault: `bad_series` (no numbers, other channels), `empty_series`, `nan_series`.
        InputError: `length` is below 1.
    """
    if length < 1:
        raise InputError(f"series.window: length={length} should be 1 or more.")
    value_TxC = _series(value)
    if value_TxC.shape[1] != channels:
        raise Fault("bad_series", f"it has {value_TxC.shape[1]} channels, not {channels}")
    known_TxC = np.isfinite(value_TxC)
    if missing == "fault" and not known_TxC.all():
        raise Fault("nan_series", "some of its numbers are NaN or infinite")
    spare = max(0, len(value_TxC) - length)
    start = spare // 2 if at == "centre" else 0
    if train:
        start = int(rng.integers(spare + 1))
    part = slice(start, start + length)
    n = min(length, len(value_TxC))
    value_LxC = np.zeros((length, channels), np.float32)
    known_LxC = np.zeros((length, channels), bool)
    known_LxC[:n] = known_TxC[part]
    value_LxC[:n] = np.where(known_TxC[part], value_TxC[part], 0)
    made = {"value": value_LxC, "mask": np.arange(length) < n}
    if missing == "mask":
        made["known"] = known_LxC
    return made if train else made | {"raw": drawn.curves(value_LxC)}


def normalise(
    value: Mapping[str, np.ndarray],
    *,
    rng: np.random.Generator,
    train: bool,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """(value − mean) / std of each channel: those given, or those of the window itself.

    A channel that does not change within the window becomes 0.

    Args:
        mean, std: one number a channel, of the whole data set; both or neither.

    Raises:
        InputError: only one is given, their number is not that of the channels, or a std is 0.
    """
    value_LxC, known_LxC = value["value"], _known(value)
    channels = value_LxC.shape[1]
    if mean is None and std is None:
        count_C = np.maximum(1, known_LxC.sum(axis=0))
        mean_C = value_LxC.sum(axis=0, dtype=np.float64) / count_C
        off_LxC = np.where(known_LxC, value_LxC - mean_C, 0)
        std_C = np.sqrt((off_LxC**2).sum(axis=0) / count_C)
        still_C = std_C <= np.finfo(np.float32).eps * np.abs(mean_C)
        std_C = np.where(still_C, np.inf, std_C)
    elif mean is None or std is None or not len(mean) == len(std) == channels or min(std) <= 0:
        raise InputError(
            f"series.normalise: mean and std should both have {channels} numbers, a channel each, "
            "and no std be 0; or leave both out."
        )
    else:
        mean_C, std_C = np.array(mean), np.array(std)
    scaled_LxC = np.where(known_LxC, (value_LxC - mean_C) / std_C, 0)
    return {**value, "value": scaled_LxC.astype(np.float32)}


def jitter(
    value: Mapping[str, np.ndarray], *, rng: np.random.Generator, train: bool, sigma: float = 0.05
) -> dict[str, np.ndarray]:
    """Add noise N(0, sigma²) to every number in training (Um et al. 2017, arXiv:1706.00527)."""
    if not train:
        return dict(value)
    noise_LxC = sigma * rng.standard_normal(value["value"].shape, np.float32)
    return {**value, "value": value["value"] + np.where(_known(value), noise_LxC, 0)}


def scale(
    value: Mapping[str, np.ndarray], *, rng: np.random.Generator, train: bool, sigma: float = 0.1
) -> dict[str, np.ndarray]:
    """Multiply every channel by one number of N(1, sigma²) in training (Um et al. 2017)."""
    if not train:
        return dict(value)
    factor_C = 1 + sigma * rng.standard_normal(value["value"].shape[1], np.float32)
    return {**value, "value": value["value"] * factor_C}


def permute(
    value: Mapping[str, np.ndarray], *, rng: np.random.Generator, train: bool, segments: int = 4
) -> dict[str, np.ndarray]:
    """Cut what is there into so many stretches, at random, and put them in random order, in
    training (Um et al. 2017). Padding stays behind.

    Raises:
        InputError: `segments` is below 1.
    """
    if segments < 1:
        raise InputError(f"series.permute: segments={segments} should be 1 or more.")
    if not train:
        return dict(value)
    n, length = int(value["mask"].sum()), len(value["mask"])
    cuts = np.sort(rng.choice(np.arange(1, max(1, n)), min(segments - 1, max(0, n - 1)), False))
    parts = np.split(np.arange(n), cuts)
    order = np.concatenate([*(parts[i] for i in rng.permutation(len(parts))), np.arange(n, length)])
    moved = {key: value[key][order] for key in ("value", "known") if key in value}
    return {**value, **moved}


def _series(value: Any) -> np.ndarray:
    value_TxC = floats(value, "series")
    if value_TxC.ndim == 1:
        value_TxC = value_TxC[:, None]
    if value_TxC.ndim != 2:
        raise Fault("bad_series", f"its shape {value_TxC.shape} is neither (T,) nor (T, C)")
    if not value_TxC.size:
        raise Fault("empty_series", "there is nothing in it")
    return value_TxC


def _known(value: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, C): where there is a number."""
    mask_Lx1 = value["mask"][:, None]
    return value.get("known", np.broadcast_to(mask_Lx1, value["value"].shape))
