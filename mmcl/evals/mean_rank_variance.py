"""Whether a thing is found as well in one language as in another.

    MRV = 1/C · sum_c 1/L · sum_l ( r_cl - mean_l r_cl )^2

over the C things that are named in all L languages, where r_cl is the rank of the right answer in
language l, 1 the best. Recall is high in every language also of a model that finds one half in one
of them and the other half in another; MRV is then not low. Source: the mean rank variance of P033.

A record is a text in one language and what it is of. Decided here: each language is searched by
itself, with its own queries in its own gallery, which hold the same things in all languages; where
a thing has several queries, r_cl is their mean.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import chance, items


def evaluate(
    embedded: Embedded,
    model: object,
    *,
    modality: str = "image",
    text: str = "text",
    language: str = "language",
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """The variance of ranks over languages, and recall in each, from texts and to them.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      modality: what the texts are of.
      text: the modality that is in several languages.
      language: the label that says in which.
      label: which texts are of one thing, and right answers of it.
      at: the K of recall@K.

    Returns:
      Under `<from>_to_<to>_<language>/`: `recall@K` and `chance@K`. Under
      `<from>_to_<to>_languages/`: `mean_rank_variance`; `chance`, that of random orders; the
      numbers of `concepts` and of `languages`.
    """
    names, records = by_language(embedded, language, label)
    figures: Figures = {}
    for from_, to in ((text, modality), (modality, text)):
        found: Figures = {}
        ranks_of, mean_of, variance_of = [], [], []
        for name, those in zip(names, records):
            query, gallery = (_distinct(embedded, m, label, those) for m in (from_, to))
            label_Q, label_G = embedded.labels[label][query], embedded.labels[label][gallery]
            z_QxD = check_unit(embedded.z[from_][query], from_)
            z_GxD = check_unit(embedded.z[to][gallery], to)
            rank_Q = ranks(z_QxD, z_GxD, label_Q, label_G)
            _, concept_Q, queries_C = np.unique(label_Q, return_inverse=True, return_counts=True)
            _, right_C = np.unique(label_G, return_counts=True)
            for k in at:
                found[f"{name}/recall@{k}"] = PerItem(rank_Q <= k, label_Q)
                found[f"{name}/chance@{k}"] = chance(right_C[concept_Q], len(gallery), k)
            ranks_of.append(np.bincount(concept_Q, rank_Q) / queries_C)
            mean_C, variance_C = random_rank(right_C, len(gallery))
            mean_of.append(mean_C)
            variance_of.append(variance_C / queries_C)
        concept_C = np.unique(label_Q)  # the same in all languages
        found["languages/mean_rank_variance"] = PerItem(np.var(ranks_of, axis=0), concept_C)
        # E[ 1/L sum (r - mean r)^2 ] of independent r
        apart_C = np.var(mean_of, axis=0) + (1 - 1 / len(names)) * np.mean(variance_of, axis=0)
        found["languages/chance"] = float(np.mean(apart_C))
        found["languages/concepts"] = float(len(concept_C))
        found["languages/languages"] = float(len(names))
        figures |= {f"{from_}_to_{to}_{metric}": figure for metric, figure in found.items()}
    return figures


def by_language(
    embedded: Embedded, language: str, label: str
) -> tuple[list[str], list[np.ndarray]]:
    """The languages of a split, and the records of each, of things that all languages name.

    Raises:
      InputError: there is no such label, one language only, or no such thing.
    """
    for name in (language, label):
        if name not in embedded.labels:
            near = nearest(name, embedded.labels)
            raise InputError(f"the records of '{embedded.split}' have no label '{name}'.{near}")
    value_L, language_N = np.unique(embedded.labels[language], return_inverse=True)
    if len(value_L) < 2:
        raise InputError(
            f"the records of '{embedded.split}' are of {len(value_L)} '{language}': ranks vary "
            "over two or more"
        )
    _, concept_N = np.unique(embedded.labels[label], return_inverse=True)
    named = np.unique(np.stack([concept_N, language_N]), axis=1)[0]
    in_all_C = np.bincount(named) == len(value_L)
    if not in_all_C.any():
        raise InputError(f"no '{label}' of '{embedded.split}' occurs with every '{language}'")
    known = dict(enumerate(embedded.label_names.get(language, [])))
    return (
        [known.get(int(value), str(value)) for value in value_L],
        [np.flatnonzero((language_N == i) & in_all_C[concept_N]) for i in range(len(value_L))],
    )


def random_rank(right_C: np.ndarray, gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the rank of the best of so many right answers in a random order."""
    mean_C = (gallery + 1) / (right_C + 1)
    return mean_C, mean_C * right_C * (gallery - right_C) / ((right_C + 1) * (right_C + 2))


def _distinct(embedded: Embedded, modality: str, label: str, those: np.ndarray) -> np.ndarray:
    """The records that stand for distinct items among those."""
    if modality not in embedded.z or not isinstance(embedded.shown[modality][0], str):
        items(embedded, modality, label)  # says what is wrong
        return those
    part = dataclasses.replace(
        embedded,
        labels={label: embedded.labels[label][those]},
        shown={modality: [embedded.shown[modality][i] for i in those]},
        ids=[embedded.ids[i] for i in those],
    )
    return those[items(part, modality, label)]
