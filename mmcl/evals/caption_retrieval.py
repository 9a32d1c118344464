"""Retrieval where a picture has several captions: the protocol of COCO and Flickr30k.

As Karpathy and Fei-Fei 2015 (arXiv 1412.2306) report it: every record has K captions, by convention
five. From picture to caption the gallery is all captions of all records, and a query is answered
when any of its own is among the k nearest; from caption to picture every caption is a query of its
own, and the gallery is the pictures.

    image_to_captions/recall@k = 1/N  sum_i  [min over own captions c of rank_i(c) <= k]
    captions_to_image/recall@k = 1/KN sum_c  [rank_c(picture of c) <= k]

Decided here: of records with more captions (some of COCO have six or seven) the first K count, and
records with fewer are taken as they are. Captions of different records that are equal, letter by
letter, tie (`shared` says how many captions are such), and a tie is never counted in a model's
favour, as `pairs.py` says: where a tie is broken by order, the figures lie a little higher.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.names import nearest
from data_pipelines.pipeline import read
from data_pipelines.scan import only
from mmcl import experiment
from mmcl.evals.batches import used_records
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import answered
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    text: str = "text",
    captions: int | None = 5,
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval between the records' values of a modality and all their captions.

    Args:
      embedded: the split.
      model: encodes the captions, of which `embedded` has the first only.
      modality: what the captions are of.
      text: the entry of the records with the captions: a list of strings, or one string.
      captions: how many of each record count, from the first on; None: all.
      at: the k of recall@k.

    Returns:
      Under `<modality>_to_captions/` and `captions_to_<modality>/`: `recall@k`; `chance@k`, what a
      random order of the gallery would reach on average; `median_rank` of the best right answer (1
      is perfect); the numbers of `queries` and of items in the `gallery`; and under the former how
      many captions are `shared` by several records. Intervals are of records, whose captions are
      drawn together.
    """
    if modality not in embedded.z:
        near = nearest(modality, embedded.z)
        raise InputError(f"no modality '{modality}' in '{embedded.split}'.{near}")
    if captions is not None and captions < 1:
        raise InputError(f"captions={captions} leaves none: use 1 or more, or None for all")
    of_records = own_captions(embedded, model, text, captions)
    words = [caption for own in of_records for caption in own]
    record_C = np.repeat(np.arange(len(of_records)), [len(own) for own in of_records])
    record_N = np.arange(len(of_records))
    z_NxD = check_unit(embedded.z[modality], modality)
    z_CxD = check_unit(model.encode(text, words), text)
    there, back = f"{modality}_to_captions", f"captions_to_{modality}"
    rank_N = ranks(z_NxD, z_CxD, record_N, record_C)
    rank_C = ranks(z_CxD, z_NxD, record_C, record_N)
    found = {there: answered(rank_N, record_N, record_C, at)}
    found[there]["shared"] = float(shared(of_records))
    found[back] = answered(rank_C, record_C, record_N, at)
    return {f"{way}/{name}": it for way, figures in found.items() for name, it in figures.items()}


def own_captions(
    embedded: Embedded, model: Model, text: str, captions: int | None
) -> list[list[str]]:
    """The captions of each record that was embedded, as its source has them.

    Raises:
      InputError: a record has no captions, or has changed since it was embedded.
    """
    source = only(experiment.open_source(model.settings, embedded.split), text)
    found = []
    for index, id in zip(used_records(embedded, source).tolist(), embedded.ids):
        try:
            record = read(source, index)
        except Fault as fault:
            raise InputError(f"'{id}' can no longer be read: {fault}") from fault
        if record["id"] != id:
            raise InputError(f"record {index} was '{id}' when embedded, and is '{record['id']}'")
        found.append(_strings(record.get(text), text, id)[:captions])
    return found


def shared(of_records: Sequence[Sequence[str]]) -> int:
    """How many captions are those of another record too."""
    records: dict[str, set[int]] = defaultdict(set)
    for record, own in enumerate(of_records):
        for caption in own:
            records[caption].add(record)
    return sum(len(records[caption]) > 1 for own in of_records for caption in own)


def _strings(value: Any, text: str, id: str) -> list[str]:
    those = [value] if isinstance(value, str) else value
    if not isinstance(those, list | tuple) or not all(isinstance(one, str) for one in those):
        raise InputError(
            f"'{text}' of '{id}' is a {type(value).__name__}, and should be a list of captions"
        )
    if not those:
        raise InputError(f"'{id}' has no captions as its '{text}'")
    return list(those)
