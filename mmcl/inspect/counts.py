"""What is in the records of a source, counted."""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.fits import short

QUANTILES = {"least": 0.0, "median": 0.5, "99 %": 0.99, "most": 1.0}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the records.

    Attributes:
        there: records that have it.
        kinds: what it is, e.g. "JPEG 500 × 375", "text" -> in how many records.
        values: of an integer label, its values -> in how many records; else empty.
        example: the first one, in a few words.
    """

    name: str
    there: int
    kinds: Counter[str]
    values: Counter[int]
    example: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """The texts of one entry.

    Attributes:
        count: how many texts.
        per_record: how many a record has that has some: least, median, 99 %, most.
        letters, words: of a text, the same.
        blank: texts without a letter.
        languages: language -> texts, where the entry says so.
    """

    name: str
    count: int
    per_record: dict[str, float]
    letters: dict[str, float]
    words: dict[str, float]
    blank: int
    languages: Counter[str]


def entries(records: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Every entry of these records but `id`, in the order in which they come up."""
    found = []
    for name in dict.fromkeys(name for record in records for name in record if name != "id"):
        values = [record[name] for record in records if record.get(name) is not None]
        kinds, labels = Counter(map(kind, values)), Counter[int]()
        if all(isinstance(value, int | np.integer) for value in values):
            labels = Counter(map(int, values))
        example = short(values[0]) if values and kind(values[0]) in ("text", "texts") else ""
        found.append(Entry(name, len(values), kinds, labels, example))
    return found


def kind(value: Any) -> str:
    """What a raw value is, in a word or two."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "true or false"
    if isinstance(value, int | np.integer):
        return "whole number"
    if isinstance(value, float | np.floating):
        return "number"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {' × '.join(map(str, value.shape)) or 'scalar'}"
    if isinstance(value, bytes):
        return _file(value)
    if isinstance(value, Mapping):
        inside = Counter(map(kind, value.values())).most_common(1)
        return f"{inside[0][0]} by key" if inside else "nothing by key"
    if isinstance(value, Sequence):
        inside = Counter(map(kind, value)).most_common(1)
        return (
            {"text": "texts"}.get(inside[0][0], f"list of {inside[0][0]}") if inside else "no text"
        )
    return type(value).__name__


def _file(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return f"{picture.format} {picture.width} × {picture.height}"
    except Exception:  # whatever a broken picture makes Pillow raise
        return "bytes"


def captions(records: Iterable[Mapping[str, Any]], name: str) -> Captions | None:
    """The texts of an entry; None if it has none."""
    texts: list[str] = []
    counts: list[int] = []
    languages = Counter[str]()
    for record in records:
        here = list(texts_of(record.get(name)))
        languages.update(language for language, _ in here if language)
        texts += [text for _, text in here]
        counts += [len(here)] if here else []
    if not texts:
        return None
    return Captions(
        name,
        len(texts),
        quantiles(counts),
        quantiles([len(text) for text in texts]),
        quantiles([len(text.split()) for text in texts]),
        sum(not text.strip() for text in texts),
        languages,
    )


def texts_of(value: Any, language: str = "") -> Iterable[tuple[str, str]]:
    """(language or "", text) of every text in a raw value."""
    if isinstance(value, str):
        yield language, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_of(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner, language)


def quantiles(numbers: Sequence[float]) -> dict[str, float]:
    found = np.quantile(numbers, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.tolist()))
