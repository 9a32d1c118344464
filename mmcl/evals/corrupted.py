"""Corrupted inputs of an embedded split, encoded.

Pictures and other floats are corrupted as towers get them, after the transforms; texts as soon as
they are strings, before they are cleaned and tokenised.
"""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.evals.batches import batches, used_records
from mmcl.evals.corruptions_floats import FLOATS
from mmcl.evals.corruptions_pictures import PICTURES
from mmcl.evals.corruptions_text import TEXTS
from mmcl.evals.embedded import Embedded
from mmcl.evals.pairs import check_unit
from mmcl.evals.texts import texts
from mmcl.model import Model

SEVERITIES = 5

Corruptions = Mapping[str, Callable[[Any, int, np.random.Generator], Any]]
Made = Iterator[tuple[np.ndarray, np.ndarray]]


def known(embedded: Embedded, model: Model, modality: str) -> Corruptions:
    """The corruptions of a modality's kind, by what its first record is.

    Raises:
      InputError: there are none for it.
    """
    source = experiment.open_source(model.settings, embedded.split)
    first = int(used_records(embedded, source)[0])
    inputs = model.pipeline(source[first], first, seed=(0,), train=False)[modality]
    value = np.asarray(inputs.get("value", 0))
    if isinstance(inputs.get("raw"), str):
        return TEXTS
    if value.dtype == np.uint8 and value.shape[2:] == (3,):
        return PICTURES
    if np.issubdtype(value.dtype, np.floating):
        return FLOATS
    raise InputError(
        f"'{modality}' is neither pictures, uint8 (H, W, 3), nor text nor floats, which alone are "
        "corrupted"
    )


def corrupted(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    those: Corruptions,
    seed: int,
) -> Made:
    """Some of the records, and their z by all of `those`, until all records are there.

    Returns:
      Each time record numbers (R,), and z of corruptions, then severities, then records, all as
      rows. What is random hangs on the seed, the record's number in the source and the corruption.
    """
    if those.items() <= TEXTS.items():
        return _texts(embedded, model, record_N, modality, those, seed)
    return _arrays(embedded, model, record_N, modality, those, seed)


def _arrays(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    those: Corruptions,
    seed: int,
) -> Made:
    """Of the values that towers get, batch by batch."""
    for batch in batches(embedded, model, record_N):
        inputs, z = batch.inputs[modality], []
        with ThreadPoolExecutor() as threads:
            for name, severity in _each(those):
                change = functools.partial(
                    corrupt, those=those, name=name, severity=severity, seed=seed
                )
                made = threads.map(change, inputs["value"], batch.inputs["index"].tolist())
                value = np.stack(list(made)).astype(inputs["value"].dtype)
                z_BxD = model.encode_batch(modality, {**inputs, "value": value})
                z.append(check_unit(z_BxD[: batch.real], modality))
        yield batch.record_B[: batch.real], np.concatenate(z)


def _texts(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    those: Corruptions,
    seed: int,
) -> Made:
    """Of strings, as many records at once as are encoded at once."""
    read = texts(embedded, model, modality, record_N)
    index_N = used_records(embedded, experiment.open_source(model.settings, embedded.split))
    for start in range(0, len(record_N), model.batch_size):
        some = slice(start, start + model.batch_size)
        changed = [
            corrupt(text, int(index_N[record]), those, name, severity, seed)
            for name, severity in _each(those)
            for text, record in zip(read.text_N[some], record_N[some])
        ]
        yield record_N[some], read.encode(changed)


def _each(those: Corruptions) -> list[tuple[str, int]]:
    """Every corruption at every severity."""
    return [(name, severity) for name in those for severity in range(1, SEVERITIES + 1)]


def corrupt(value: Any, index: int, those: Corruptions, name: str, severity: int, seed: int) -> Any:
    """The same at this severity, 1 to 5; what is random hangs on seed, index and name."""
    rng = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    return those[name](value, severity, rng)
