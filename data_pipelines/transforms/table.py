"""Rows of a table: numbers on one scale, categories as ids, and what is missing masked.

Both need to know the table: `fit` looks at its rows once, and `encode` reads what it found.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault

UNKNOWN = 0  # the id of a category that `fit` has not seen, or that is missing
_FARTHEST = 1e-7  # from 0 and 1 that a quantile goes: 5.2 standard deviations


def fit(
    records: Iterable[Mapping[str, Any]],
    *,
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    quantiles: int = 101,
    least: int = 1,
) -> dict[str, Any]:
    """What `encode` has to know, of the rows that a model is trained on.

        rows = (record["patient"] for record in source)
        Path(folder, "statistics.json").write_text(json.dumps(table.fit(rows, numbers=["age"])))

    Args:
        records: mappings from columns to values.
        numbers, categories: the columns to encode, in that order.
        quantiles: how many to keep of each number, evenly spaced from the least to the most.
        least: a category that is rarer is unknown.

    Returns:
        `{"numbers": {column: {"mean", "std", "quantiles"}}, "categories": {column: [names, most
        frequent first]}}`, plain numbers and strings.

    Raises:
        InputError: a column of numbers has none.
        Fault: `bad_table`: a value is no number where one should be.
    """
    seen: dict[str, list[float]] = {column: [] for column in numbers}
    counts: dict[str, Counter[str]] = {column: Counter() for column in categories}
    for record in records:
        for column, of in seen.items():
            if (number := _number(record, column)) is not None:
                of.append(number)
        for column, count in counts.items():
            if (name := _category(record, column)) is not None:
                count[name] += 1
    found: dict[str, Any] = {}
    for column, of in seen.items():
        if not of:
            raise InputError(f"table.fit: no row has a number in '{column}'; is that its name?")
        found[column] = {
            "mean": float(np.mean(of)),
            "std": float(np.std(of)),
            "quantiles": _quantiles(of, quantiles),
        }
    names = {
        column: [
            name
            for name, times in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))
            if times >= least
        ]
        for column, count in counts.items()
    }
    return {"numbers": found, "categories": names}


def encode(
    value: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None,
    statistics: str | Mapping[str, Any] = "statistics.json",
    scaling: Literal["standard", "quantile"] = "standard",
) -> dict[str, Any]:
    """One row: N numbers and C categories, in the order of the statistics.

    A column that the row lacks is missing, and so is None, NaN and the empty string.

    Args:
        value: column -> number or category; strings of digits are numbers, as CSV has them.
        statistics: as `fit` makes them, or a JSON file of them in the source's folder.
        scaling: `standard`, (x − mean) / std; or `quantile`, the normal deviate of the share of
            numbers below x (of equal ones half), which makes any distribution a normal one (as in
            Gorishniy et al. 2021, arXiv:2106.11959).

    Returns:
        `numbers` (N,) float32, 0 where missing; `categories` (C,) int32, 1 + the place among the
        names, 0 where unknown or missing; `mask` (N + C,) bool, numbers first, False where missing;
        `raw` a string of the row.

    Raises:
        Fault: `bad_table`: no row, or a value is no number where one should be.
        InputError: there are no statistics, or they are none.
    """
    if not isinstance(value, Mapping):
        raise Fault("bad_table", f"it is a {type(value).__name__}, not columns with values")
    if isinstance(statistics, str):
        known = _load((folder or Path()) / statistics)
    else:
        known = _prepared(statistics, "statistics")
    row = [_number(value, column) for column in known["numbers"]]
    names = [_category(value, column) for column in known["categories"]]
    numbers_N = np.array(
        [
            0.0 if number is None else _scaled(number, of, scaling)
            for number, of in zip(row, known["numbers"].values())
        ]
    )
    if (np.abs(numbers_N) > np.finfo(np.float32).max).any():
        raise Fault("bad_table", "a number is too large")
    ids_C = [
        UNKNOWN if name is None else ids.get(name, UNKNOWN)
        for name, ids in zip(names, known["categories"].values())
    ]
    columns = [*known["numbers"], *known["categories"]]
    shown = [
        f"{column}: {value[column]}"
        for column, there in zip(columns, [*row, *names])
        if there is not None
    ]
    return {
        "numbers": numbers_N.astype(np.float32),
        "categories": np.array(ids_C, np.int32),
        "mask": np.array([there is not None for there in [*row, *names]]),
        "raw": ", ".join(shown),
    }


def _quantiles(numbers: list[float], count: int) -> list[float]:
    """From the least to the most; what falls on a number is that number, whatever the rounding."""
    place_Q = np.round(np.linspace(0, len(numbers) - 1, count), 9)
    return np.interp(place_Q, np.arange(len(numbers)), np.sort(numbers)).tolist()


def _number(record: Mapping[str, Any], column: str) -> float | None:
    value = record.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Fault("bad_table", f"its '{column}' is {value!r:.40}, no number") from None
    if math.isinf(number):
        raise Fault("bad_table", f"its '{column}' is infinite")
    return None if math.isnan(number) else number


def _category(record: Mapping[str, Any], column: str) -> str | None:
    value = record.get(column)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def _scaled(number: float, of: Mapping[str, Any], scaling: str) -> float:
    if scaling == "standard":
        return (number - of["mean"]) / (of["std"] or 1.0)
    quantiles = of["quantiles"]
    share_Q = np.linspace(0, 1, len(quantiles))
    below = np.interp(number, quantiles, share_Q)
    above = np.interp(-number, -quantiles[::-1], share_Q)  # differs where quantiles are equal
    share = float(0.5 + (below - above) / 2)
    return NormalDist().inv_cdf(min(max(share, _FARTHEST), 1 - _FARTHEST))


@functools.lru_cache
def _load(path: Path) -> dict[str, Any]:
    try:
        return _prepared(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: write what table.fit gives into it.") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def _prepared(statistics: Any, where: str) -> dict[str, Any]:
    """Statistics with their quantiles as arrays and an id for every name."""
    try:
        numbers = {
            column: {
                "mean": float(of["mean"]),
                "std": float(of["std"]),
                "quantiles": np.array(of["quantiles"], float),
            }
            for column, of in statistics["numbers"].items()
        }
        categories = {
            column: {name: 1 + i for i, name in enumerate(names)}
            for column, names in statistics["categories"].items()
        }
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{where} is not what table.fit gives.") from error
    return {"numbers": numbers, "categories": categories}
