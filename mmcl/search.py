"""Find the records of a run's data that lie nearest to a text."""

from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from data_pipelines.pipeline import first_usable
from mmcl import experiment
from mmcl.model import Model


class Hit(NamedTuple):
    score: float  # cosine
    id: str
    split: str
    shown: dict[str, Any]  # what each modality of the record shows: a picture, a string


def search(
    model: Model, text: str, *, query: str | None = None, among: str | None = None, k: int = 20
) -> list[Hit]:
    """The k records of all splits nearest to `text` by cosine, best first.

    Args:
        query: modality whose tower reads the text; None: `text`, or the first.
        among: modality that is searched; None: the first other one.

    Raises:
        InputError: no such modality, or one whose tower reads no text.
    """
    towers = list(model.settings.towers)
    query = query or ("text" if "text" in towers else towers[0])
    among = among or next(m for m in [*towers, query] if m != query or len(towers) == 1)
    for modality in (query, among):
        if modality not in towers:
            raise InputError(f"This run has no modality '{modality}'.{nearest(modality, towers)}")
    source = experiment.open_source(model.settings)
    value = first_usable(source, lambda record, _: record).get(query)
    if isinstance(value, np.ndarray | bytes):
        raise InputError(f"'{query}' is no text; name the modality that reads it with --from.")
    z_D = model.encode(query, [text])[0]
    hits: list[Hit] = []
    for split in getattr(source, "splits", [model.settings.source.get("split")]):
        embedded = model.embed(split, [among])
        score_N = embedded.z[among] @ z_D
        for i in np.argsort(-score_N, kind="stable")[:k]:
            shown = {modality: things[i] for modality, things in embedded.shown.items()}
            hits.append(Hit(float(score_N[i]), embedded.ids[i], split, shown))
    return sorted(hits, key=lambda hit: -hit.score)[:k]
