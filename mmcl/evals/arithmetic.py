"""Embedding arithmetic: a picture, less the words for its attribute, plus those for another one.

    query(i, b) = unit( z_i + scale · ( t_b - t_a ) ),  a the attribute of item i

should find an item of the same thing (label) that has attribute b: the dog by another artist, the
shirt in another colour. t are the prompts of the attributes' names, as in `zeroshot`. With captions
for prompts this is the search of SIMAT (Couairon et al. 2022, arXiv 2112.03162); P003 judges by
arithmetic how well the modalities meet. Decided here: each item is asked for each attribute that
its thing occurs with beside its own; item i is left out of its own gallery. What is alike is found
without any arithmetic, so that the number to compare with is that of scale 0.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks, unit_or_zero
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.evals.zeroshot import class_embeddings, class_names
from mmcl.model import Model

ROWS = 2**15  # queries that are in memory at once


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    attribute: str,
    label: str = "concept",
    modality: str = "image",
    text: str = "text",
    templates: Sequence[str] = ("{}",),
    scale: float = 1.0,
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Recall of the same thing with another attribute.

    Args:
      embedded: the split.
      model: encodes the prompts.
      attribute: the label that is changed, whose values have names.
      label: the one that stays: what things are the same.
      modality: what is searched, by items of the same.
      text: the modality that the prompts are written in.
      templates: prompts with `{}` where the attribute's name goes.
      scale: how far along t_b - t_a a query is moved.
      at: the K of recall@K.

    Returns:
      Under `arithmetic_<attribute>/`: `recall@K`; `unmoved@K`, recall by z_i itself; `gain@K`, the
      difference; `chance@K`, that of a random order; the numbers of `queries` and of items in the
      `gallery`, of which each query sees all but its own.
    """
    all_names = class_names(embedded, attribute)
    record = items(embedded, modality, label)
    z_GxD = check_unit(embedded.z[modality][record], modality)
    value_A, attribute_G = np.unique(embedded.labels[attribute][record], return_inverse=True)
    thing_G = np.unique(embedded.labels[label][record], return_inverse=True)[1]
    key_G = thing_G * len(value_A) + attribute_G
    item_Q, wanted_Q = asked(thing_G, attribute_G, len(value_A))
    if not len(item_Q):
        raise InputError(
            f"no '{label}' of '{embedded.split}' occurs with two values of '{attribute}', so that "
            "none can be changed: give another 'attribute', 'label' or split"
        )
    names = [all_names[v] for v in value_A]
    z_AxD = class_embeddings(names, templates, lambda prompts: model.encode(text, prompts))
    key_Q = thing_G[item_Q] * len(value_A) + wanted_Q
    parts = []
    for start in range(0, len(item_Q), ROWS):
        item_R, wanted_R, key_R = (of[start : start + ROWS] for of in (item_Q, wanted_Q, key_Q))
        z_RxD = moved(z_GxD[item_R], z_AxD[wanted_R] - z_AxD[attribute_G[item_R]], scale)
        by = (z_RxD, z_GxD[item_R])
        parts.append([ranks(z, z_GxD, key_R, key_G, item_R) for z in by])
    rank_Q, unmoved_Q = np.concatenate(parts, axis=1)
    cluster_Q = embedded.labels["concept"][record[item_Q]]
    right_Q = right_answers(key_Q, key_G)
    figures: Figures = {}
    for k in at:
        hit_Q, without_Q = rank_Q <= k, unmoved_Q <= k
        figures[f"recall@{k}"] = PerItem(hit_Q, cluster_Q)
        figures[f"unmoved@{k}"] = PerItem(without_Q, cluster_Q)
        figures[f"gain@{k}"] = PerItem(hit_Q.astype(np.float64) - without_Q, cluster_Q)
        figures[f"chance@{k}"] = chance(right_Q, len(record) - 1, k)
    figures |= {"queries": float(len(item_Q)), "gallery": float(len(record))}
    return {f"arithmetic_{attribute}/{name}": figure for name, figure in figures.items()}


def asked(
    thing_G: np.ndarray, attribute_G: np.ndarray, attributes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each query the gallery item that it starts from, and the attribute that it asks for."""
    occurs = np.unique(thing_G * attributes + attribute_G)  # sorted by thing
    thing_K, attribute_K = np.divmod(occurs, attributes)
    first_G = np.searchsorted(thing_K, thing_G)
    times_G = np.bincount(thing_K)[thing_G]
    item_Q = np.repeat(np.arange(len(thing_G)), times_G)
    turn_Q = np.arange(len(item_Q)) - np.repeat(np.cumsum(times_G) - times_G, times_G)
    wanted_Q = attribute_K[first_G[item_Q] + turn_Q]
    other_Q = wanted_Q != attribute_G[item_Q]
    return item_Q[other_Q], wanted_Q[other_Q]


def moved(z_QxD: np.ndarray, step_QxD: np.ndarray, scale: float) -> np.ndarray:
    """unit(z + scale · step): float32; zero, which is never right, where nothing is left."""
    z_QxD = z_QxD + scale * step_QxD
    return unit_or_zero(z_QxD).astype(np.float32)
