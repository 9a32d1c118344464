"""Look at a source, and at what a model receives of it, before training is paid for."""

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.faults import Fault, Reject
from data_pipelines.loader import load
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline, Source, read
from mmcl.inspect.counts import Captions, Entry, captions, entries, kind, quantiles, texts_of
from mmcl.inspect.shown import Shown, shown

EPOCHS = 3  # a card shows what training sees of a record in so many
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How full the places of a text are.

    Attributes:
        used: of the records' places: least, median, 99 %, most.
        full: share of records that use every place: what they say beyond is cut off.
    """

    modality: str
    places: int
    used: dict[str, float]
    full: float


@dataclasses.dataclass(frozen=True)
class Card:
    """A record as it is stored, and as a model receives it in several epochs; modality -> Shown."""

    id: str
    index: int
    stored: dict[str, Shown]
    received: list[dict[str, Shown]]


@dataclasses.dataclass(frozen=True)
class Looked:
    """What was seen.

    Attributes:
        records: of the source.
        seen: how many of them were looked at, evenly spread.
        rejected: those of them that cannot be used, and why.
        label_names: as the source has them.
    """

    records: int
    seen: int
    entries: list[Entry]
    captions: list[Captions]
    tokens: list[Tokens]
    rejected: list[Reject]
    label_names: Mapping[str, Sequence[str]]
    cards: list[Card]


def look(
    source: Source,
    pipeline: Pipeline | None = None,
    *,
    seed: int = 0,
    records: int = 1000,
    cards: int = 24,
) -> Looked:
    """Count what is in so many records of a source, and lay out the first of its first epoch.

    Args:
        pipeline: the transforms of an experiment; None: records are only looked at as stored.
        seed: of the experiment: cards are in the order and with the chances of its training.

    Raises:
        InputError: a transform refuses its options.
    """
    step = -(-len(source) // records)
    numbers = range(0, len(source), step)

    def one(index: int) -> tuple[dict[str, Any] | None, dict[str, Any] | Reject | None]:
        try:
            raw = read(source, index)
        except Fault as fault:
            return None, Reject(None, index, 0, index, fault.kind, fault.reason)
        if pipeline is None:
            return raw, None
        return raw, load(source, pipeline, index, seed=(seed, 0, 0, index), train=True)

    with ThreadPoolExecutor(_THREADS) as pool:
        seen = list(pool.map(one, numbers))
    raws = [raw for raw, _ in seen if raw is not None]
    made = [example for _, example in seen if isinstance(example, dict)]
    found = entries(raws)
    texts = [captions(raws, entry.name) for entry in found]
    order = Order(len(source), seed)
    laid = []
    for position in range(min(cards, len(source))):
        card = _card(source, pipeline, order(position)[1], seed)
        laid += [card] if card is not None else []
    return Looked(
        len(source),
        len(numbers),
        found,
        [text for text in texts if text is not None],
        [] if pipeline is None else _tokens(made, list(pipeline.transforms)),
        [example for _, example in seen if isinstance(example, Reject)],
        source.label_names,
        laid,
    )


def faults(looked: Looked) -> Counter[str]:
    """Kind of fault -> records."""
    return Counter(one.kind for one in looked.rejected)


def _tokens(made: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> list[Tokens]:
    found = []
    for modality in modalities:
        there = [e[modality] for e in made if e["present"][modality]]
        masks = [one["mask"] for one in there if isinstance(one, Mapping) and "mask" in one]
        if masks and np.ndim(masks[0]) == 1:
            used = [int(np.sum(mask)) for mask in masks]
            full = float(np.mean([np.all(mask) for mask in masks]))
            found.append(Tokens(modality, len(masks[0]), quantiles(used), full))
    return found


def _card(source: Source, pipeline: Pipeline | None, index: int, seed: int) -> Card | None:
    """None where the record cannot be read."""
    try:
        raw = read(source, index)
    except Fault:
        return None
    received = []
    for epoch in range(EPOCHS if pipeline is not None else 0):
        assert pipeline is not None
        example = load(source, pipeline, index, seed=(seed, 0, epoch, index), train=True)
        if isinstance(example, Reject):
            received.append({"": Shown([], f"{example.kind}: {example.reason}")})
            continue
        there = [m for m in pipeline.transforms if example["present"][m]]
        received.append({modality: shown(example[modality]) for modality in there})
    labels = {name for name, value in raw.items() if isinstance(value, int | np.integer)}
    stored = {
        name: _stored(value)
        for name, value in raw.items()
        if name != "id" and value is not None and name not in labels
    }
    if labels:
        told = [f"{name} {_named(source, name, raw[name])}" for name in raw if name in labels]
        stored["labels"] = Shown([], " · ".join(told))
    return Card(str(raw["id"]), index, stored, received)


def _named(source: Source, label: str, value: int) -> str:
    names = source.label_names.get(label, ())
    return names[value] if 0 <= value < len(names) else str(value)


def _stored(value: Any) -> Shown:
    texts = [text for _, text in texts_of(value)]
    if texts:
        more = f" (and {len(texts) - 3} more)" if len(texts) > 3 else ""
        return Shown([], " · ".join(texts[:3]) + more)
    if isinstance(value, bytes):
        try:
            picture = Image.open(io.BytesIO(value))
            picture.thumbnail((256, 256))
            return Shown([np.asarray(picture.convert("RGB"))], kind(value))
        except Exception:  # whatever a broken picture makes Pillow raise
            return Shown([], f"{len(value):,} bytes")
    if isinstance(value, np.ndarray):
        return shown(value)
    return Shown([], str(value)[:80])
