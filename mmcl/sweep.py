"""A grid of runs: what is changed, where each run lies, which came out best."""

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import InputError
from data_pipelines.names import nearest

LONGEST = 120  # characters of a run's name; file systems take 255 bytes


class Changed(NamedTuple):
    overrides: list[tuple[str, str]]  # dotted key of the config, value as text
    folder: Path


def parse(over: str) -> tuple[str, list[str]]:
    """`config.a.b=1,[2,3]` -> ("a.b", ["1", "[2,3]"]): commas in brackets or quotes are a value's.

    Raises:
        InputError: it has another form, no value, an empty one, or one twice.
    """
    key, equals, text = over.partition("=")
    if not equals or not key.startswith("config.") or key == "config.":
        raise InputError(f"--over {over}: give config.KEY=VALUE,VALUE,...")
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[({":
            depth += 1
        elif letter in "])}":
            depth -= 1
        if letter == "," and not quote and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    values = [value.strip() for value in values]
    if quote or depth:
        raise InputError(f"--over {over}: a bracket or quote is not closed.")
    if "" in values:
        raise InputError(f"--over {over}: there is a value missing.")
    if twice := [value for value in values if values.count(value) > 1]:
        raise InputError(f"--over {over}: {twice[0]} is given twice.")
    return key.removeprefix("config."), values


def grid(overs: Sequence[str], folder: Path) -> list[Changed]:
    """The runs of all combinations, the last key changing first.

    Raises:
        InputError: an `--over` cannot be read, or changes the same key as another.
    """
    parsed = [parse(over) for over in overs]
    keys = [key for key, _ in parsed]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"--over config.{twice[0]} is given twice; list its values after one.")
    return [
        Changed(list(zip(keys, values)), folder / name(list(zip(keys, values))))
        for values in itertools.product(*(values for _, values in parsed))
    ]


def name(overrides: Sequence[tuple[str, str]]) -> str:
    """`x=1,y=a`: a name that any file system takes, and no other overrides have."""
    text = ",".join(f"{key}={value}" for key, value in overrides)
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", text)
    if safe == text and len(text) <= LONGEST:
        return text
    return f"{safe[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def metric_names(final: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """The metrics of the table; by the first it is sorted. `-METRIC`: lower is better.

    Args:
        final: the last row of a run's metrics.
        asked: by the user; if nothing, the first evaluation metric and the training loss.

    Raises:
        InputError: the run has no such metric.
    """
    for metric in asked:
        if metric.removeprefix("-") not in final:
            near = nearest(metric.removeprefix("-"), [n for n in final if "/" in n])
            raise InputError(f"--metric: the runs have no '{metric.removeprefix('-')}'.{near}")
    first = next((key for key in final if key.startswith("eval/")), None)
    return list(asked) or [*([first] if first else []), "-train/loss"]


def best_first(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Rows with `metrics` in order; what has no such number comes last."""

    def place(row: Mapping[str, Any]) -> float:
        value = row["metrics"].get(metric.removeprefix("-"), math.nan)
        if not isinstance(value, int | float) or math.isnan(value):
            return math.inf
        return value if metric.startswith("-") else -value

    return sorted(rows, key=place)
