"""Whether a thing is found as well in one language as in another.

    MRV = 1/C · sum_c 1/L · sum_l ( r_cl - mean_l r_cl )^2

over the C things that are named in all L languages, where r_cl is the rank of the right answer in
language l, 1 the best. Recall is high in every language also of a model that finds one half in one
of them and the other half in another; MRV is then not low. Source: the mean rank variance of P033.

The languages are those of the texts that records store, language -> captions, or, where each record
is a text in one language and what it is of, a label says which. Decided here: each language is
searched by itself, with its own queries in its own gallery, which hold the same things in all
languages; where a thing has several queries, r_cl is their mean. A stored text goes through the
run's own transforms with one language left in it, and what it is of is embedded once for all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.raw_values import raw_values
from mmcl.evals.retrieval import chance, items
from mmcl.model import Model


class Items(NamedTuple):
    """The distinct items of a modality that one language searches with, or among."""

    z: np.ndarray  # z_NxD
    label: np.ndarray  # label_N


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    text: str = "text",
    languages: Sequence[str] | None = None,
    language: str = "language",
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """The variance of ranks over languages, and recall in each, from texts and to them.

    Args:
      embedded: the split.
      model: encodes the texts of `languages`.
      modality: what the texts are of.
      text: the modality that is in several languages.
      languages: those that are judged, of the texts that records store; None: a text is in one
        language, which a label says.
      language: that label.
      label: which texts are of one thing, and right answers of it.
      at: the K of recall@K.

    Returns:
      Under `<from>_to_<to>_<language>/`: `recall@K` and `chance@K`. Under
      `<from>_to_<to>_languages/`: `mean_rank_variance`; `chance`, that of random orders; the
      numbers of `concepts` and of `languages`.

    Raises:
      InputError: there are not two languages, nothing is named in all of them, or the transforms
        refuse one.
    """
    if languages is None:
        spoken = labelled(embedded, modality, text, language, label)
    else:
        spoken = stored(embedded, model, modality, text, languages, label)
    figures: Figures = {}
    for from_, to in ((text, modality), (modality, text)):
        found: Figures = {}
        ranks_of, mean_of, variance_of = [], [], []
        for name, its in spoken.items():
            (z_QxD, label_Q), (z_GxD, label_G) = its[from_], its[to]
            z_QxD, z_GxD = check_unit(z_QxD, from_), check_unit(z_GxD, to)
            rank_Q = ranks(z_QxD, z_GxD, label_Q, label_G)
            _, concept_Q, queries_C = np.unique(label_Q, return_inverse=True, return_counts=True)
            _, right_C = np.unique(label_G, return_counts=True)
            for k in at:
                found[f"{name}/recall@{k}"] = PerItem(rank_Q <= k, label_Q)
                found[f"{name}/chance@{k}"] = chance(right_C[concept_Q], len(label_G), k)
            ranks_of.append(np.bincount(concept_Q, rank_Q) / queries_C)
            mean_C, variance_C = random_rank(right_C, len(label_G))
            mean_of.append(mean_C)
            variance_of.append(variance_C / queries_C)
        concept_C = np.unique(label_Q)  # the same in all languages
        found["languages/mean_rank_variance"] = PerItem(np.var(ranks_of, axis=0), concept_C)
        # E[ 1/L sum (r - mean r)^2 ] of independent r
        apart_C = np.var(mean_of, axis=0) + (1 - 1 / len(spoken)) * np.mean(variance_of, axis=0)
        found["languages/chance"] = float(np.mean(apart_C))
        found["languages/concepts"] = float(len(concept_C))
        found["languages/languages"] = float(len(spoken))
        figures |= {f"{from_}_to_{to}_{metric}": figure for metric, figure in found.items()}
    return figures


def stored(
    embedded: Embedded,
    model: Model,
    modality: str,
    text: str,
    languages: Sequence[str],
    label: str,
) -> dict[str, dict[str, Items]]:
    """language -> modality -> items, of texts that every record stores in several languages.

    Raises:
      InputError: as `evaluate` says, or records store no such texts.
    """
    if len(set(languages)) < 2:
        raise InputError(f"languages={list(languages)}: ranks vary over two or more")
    thing = items(embedded, modality, label)
    captions: dict[str, dict[tuple[int, str], object]] = {language: {} for language in languages}
    for value, concept in zip(raw_values(embedded, model, text), embedded.labels[label].tolist()):
        if not isinstance(value, Mapping | None):
            raise InputError(
                f"'{text}' of a record of '{embedded.split}' is a {type(value).__name__}, no "
                "mapping from language to captions: leave out 'languages'"
            )
        for language in languages:
            if own := (value or {}).get(language):
                captions[language].setdefault((concept, repr(own)), own)
    in_all = set(embedded.labels[label][thing].tolist())
    in_all = in_all.intersection(*({concept for concept, _ in own} for own in captions.values()))
    if not in_all:
        raise InputError(
            f"no '{label}' of '{embedded.split}' has a '{text}' in all of {', '.join(languages)}"
        )
    thing = thing[np.isin(embedded.labels[label][thing], list(in_all))]
    things = Items(embedded.z[modality][thing], embedded.labels[label][thing])
    spoken = {}
    for language, own in captions.items():
        concepts = [concept for concept, _ in own if concept in in_all]
        values = [{language: value} for (concept, _), value in own.items() if concept in in_all]
        try:
            z_NxD = model.encode(text, values)
        except InputError as error:
            raise InputError(
                f"config.transforms.{text} should take '{language}' alone, among its `languages`: "
                f"{error}"
            ) from error
        spoken[language] = {text: Items(z_NxD, np.array(concepts, np.int32)), modality: things}
    return spoken


def labelled(
    embedded: Embedded, modality: str, text: str, language: str, label: str
) -> dict[str, dict[str, Items]]:
    """The same of records that are a text in one language each."""
    has_both_N = embedded.has(text) & embedded.has(modality)
    names, records = by_language(embedded, language, label, has_both_N)
    return {
        name: {m: _distinct(embedded, m, label, those) for m in (text, modality)}
        for name, those in zip(names, records)
    }


def by_language(
    embedded: Embedded, language: str, label: str, used_N: np.ndarray
) -> tuple[list[str], list[np.ndarray]]:
    """The languages of a split, and the used records of each, of things that all languages name.

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
    named = np.unique(np.stack([concept_N, language_N])[:, used_N], axis=1)[0]
    in_all_C = np.bincount(named, minlength=concept_N.max() + 1) == len(value_L)
    if not in_all_C.any():
        raise InputError(f"no '{label}' of '{embedded.split}' occurs with every '{language}'")
    known = dict(enumerate(embedded.label_names.get(language, [])))
    return (
        [known.get(int(value), str(value)) for value in value_L],
        [
            np.flatnonzero((language_N == i) & in_all_C[concept_N] & used_N)
            for i in range(len(value_L))
        ],
    )


def random_rank(right_C: np.ndarray, gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the rank of the best of so many right answers in a random order."""
    mean_C = (gallery + 1) / (right_C + 1)
    return mean_C, mean_C * right_C * (gallery - right_C) / ((right_C + 1) * (right_C + 2))


def _distinct(embedded: Embedded, modality: str, label: str, those: np.ndarray) -> Items:
    """The distinct items among those records."""
    items(embedded, modality, label)  # says what is wrong
    if isinstance(embedded.shown[modality][0], str):
        part = dataclasses.replace(
            embedded,
            labels={label: embedded.labels[label][those]},
            shown={modality: [embedded.shown[modality][i] for i in those]},
            ids=[embedded.ids[i] for i in those],
            present={},
        )
        those = those[items(part, modality, label)]
    return Items(embedded.z[modality][those], embedded.labels[label][those])
