"""What the lines of metrics.jsonl and the config say about a run, made ready to be read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcl.metrics_log import is_number
from mmcl.report import plots

Row = Mapping[str, Any]
Spread = Mapping[str, Sequence[float]]  # figure -> (low, high)

RETRIEVAL = re.compile(
    r"eval/([^/]+)/([^/]+)_to_([^/]+)/(?:(recall|chance)@(\d+)|(queries|gallery|median_rank))"
)

COUNTS = ("queries", "gallery", "median_rank")

PANELS = {
    # title: (axis, keys, what the caption says)
    "Loss": (
        "loss",
        r"train/loss",
        "Lower is better. Pale: what was logged; strong: its running mean.",
    ),
    "Logit scale": (
        "logit scale 1/τ",
        r"train/logit_scale",
        "The factor on every cosine similarity; it grows as the model gets surer.",
    ),
    "Learning rate": ("learning rate", r"train/lr", "The schedule as it was applied."),
    "Gradient norm": (
        "gradient norm",
        r"train/grad_norm.*",
        "Steady is good; spikes warn of an unstable run.",
    ),
    "Speed": (
        "examples / s",
        r"train/examples_per_s",
        "Dips are evaluations, checkpoints or a busy machine.",
    ),
}


def training_curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A plot, with a title and a caption, of each thing that was logged about training."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key.startswith("train/")))
    lines = {key: line for key in keys if len((line := series(rows, key))[0]) > 1}
    loss = lines.get("train/loss")
    made = []
    for title, (axis, pattern, caption) in PANELS.items():
        panel = {key: lines.pop(key) for key in list(lines) if re.fullmatch(pattern, key)}
        named = {key.rpartition("/")[2]: line for key, line in panel.items()}
        if named:
            svg = plots.curves(named, axis, smooth=title == "Loss")
            made.append({"title": title, "caption": caption, "svg": svg})
    parts: dict[str, dict[str, plots.Line]] = {}
    for key in [key for key in lines if key.count("/") > 1]:  # of one thing: a line each
        whole, _, part = key.rpartition("/")
        parts.setdefault(whole, {})[part] = lines.pop(key)
    for key, named in parts.items():
        title = key.removeprefix("train/").replace("_", " ").replace("/", " ")
        svg = plots.curves(named, title)
        made.append({"title": title.capitalize(), "caption": f"Logged as {key}/…", "svg": svg})
    lines.pop("train/epoch", None)  # no news
    for key, line in lines.items():
        if loss and np.array_equal(line[1], loss[1]):
            continue  # the only term of an objective is the loss
        title = key.removeprefix("train/").replace("_", " ")
        svg = plots.curves({key: line}, title)
        made.append({"title": title.capitalize(), "caption": f"Logged as {key}.", "svg": svg})
    return made


def recall_curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each split that was evaluated more than once: recall over steps."""
    splits: dict[str, dict[tuple[str, int], plots.Line]] = {}
    chance: dict[tuple[str, int], float] = {}
    for key, value in {key: value for row in rows for key, value in row.items()}.items():
        match = RETRIEVAL.fullmatch(key)
        if not match or not match[5]:
            continue
        split, k = match[1], int(match[5])
        if match[4] == "chance":
            chance[split, k] = max(value, chance.get((split, k), 0))
        elif len((line := series(rows, key))[0]) > 1:
            splits.setdefault(split, {})[f"{match[2]} → {match[3]}", k] = line
    made = []
    for split, recall in splits.items():
        ks = {k for _, k in recall}
        recall = {of: line for of, line in recall.items() if of[1] in (min(ks), max(ks))}
        svg = plots.recall_curves(recall, chance.get((split, max(ks))))
        made.append({"title": split, "svg": svg})
    return made


def series(rows: Sequence[Row], key: str) -> plots.Line:
    """The steps at which a finite number was logged under `key`, and the numbers."""
    points = {row["step"]: row[key] for row in rows if is_number(row.get(key)) and "step" in row}
    return np.array(list(points), float), np.array(list(points.values()), float)


def recall_tables(evals: Row, spread: Spread) -> dict[str, list[dict[str, Any]]]:
    """split -> a line for each direction: recall, its interval and chance by K, and what else was
    measured.
    """
    tables: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for key, value in evals.items():
        if match := RETRIEVAL.fullmatch(key):
            split, from_, to, kind, k, other = match.groups()
            line = tables.setdefault(split, {}).setdefault(
                (from_, to),
                {
                    "from": from_,
                    "to": to,
                    "recall": {},
                    "spread": {},
                    "chance": {},
                    **dict.fromkeys(COUNTS),
                },
            )
            if kind:
                line[kind][int(k)] = value
                if kind == "recall" and key in spread:
                    line["spread"][int(k)] = spread[key]
            else:
                line[other] = value
    for line in (line for lines in tables.values() for line in lines.values()):
        line["headline"] = sorted({1, 10} & set(line["recall"])) or sorted(line["recall"])[:2]
    return {split: list(lines.values()) for split, lines in tables.items()}


def other_evals(evals: Row, spread: Spread) -> dict[str, dict[str, list[tuple[str, Any, Any]]]]:
    """split -> evaluation -> (metric, value, its interval), of everything that is not retrieval."""
    found: dict[str, dict[str, list[tuple[str, Any, Any]]]] = {}
    for key, value in evals.items():
        if not RETRIEVAL.fullmatch(key):
            _, split, *path, metric = key.split("/")
            found.setdefault(split, {}).setdefault(" ".join(path), []).append(
                (metric, value, spread.get(key))
            )
    return found


def facts(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a run, as many as its rows and its config tell.

    `time` is in seconds since training began; `hardware/<what>` in any row is shown as it is.
    """
    latest = {key: value for row in rows for key, value in row.items()}
    found = {}
    if step := latest.get("step"):
        found["steps"] = f"{step:,}"
        if pairs := pairs_seen(step, config):
            found["pairs seen"] = f"{pairs:,}"
    if is_number(latest.get("time")):
        found["wall time"] = duration(latest["time"])
    if "train/loss" in latest:
        found["final loss"] = f"{latest['train/loss']:.3f}"
    if is_number(latest.get("train/logit_scale")):
        found["logit scale"] = f"{latest['train/logit_scale']:.1f}"
    for key, value in latest.items():
        if key.startswith("hardware/"):
            found[key.removeprefix("hardware/").replace("_", " ")] = str(value)
    return found


def pairs_seen(step: int, config: Mapping[str, Any]) -> int:
    """Records that `step` steps took, stage by stage; 0 if the config does not tell."""
    seen = 0
    for changes in config.get("stages") or [{}]:
        stage = {**config, **changes}
        steps = min(step, stage.get("steps", step))
        seen += steps * stage.get("batch_size", 0)
        step -= steps
    return seen


def duration(seconds: float) -> str:
    """`42 s`, `4 min 12 s` or `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def percent(share: float | None) -> str:
    """A share as per cent: one decimal, or two significant digits of a small one."""
    if share is None:
        return "–"
    points = 100 * share
    return f"{points:.1f} %" if points >= 1 or not points else f"{points:.2g} %"


def count(number: float | None) -> str:
    """A number of things, with thousands apart."""
    return "–" if number is None else f"{number:,.10g}"


def figure(value: Any) -> str:
    """A measured value: three decimals, a whole number without."""
    if not is_number(value):
        return str(value)
    return f"{value:,.10g}" if float(value).is_integer() else f"{value:.3f}"


def flat(config: Any, at: str = "") -> dict[str, str]:
    """`a.b.0.c` -> value: the config as keys that `--config.KEY=VALUE` overrides."""
    if isinstance(config, Mapping) and config:
        inner: Iterable[tuple[Any, Any]] = config.items()
    elif isinstance(config, list | tuple) and any(isinstance(x, Mapping | list) for x in config):
        inner = enumerate(config)
    else:
        return {at: repr(config)}
    found: dict[str, str] = {}
    for key, value in inner:
        found |= flat(value, f"{at}.{key}" if at else str(key))
    return found
