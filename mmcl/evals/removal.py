"""What is left when modalities are missing: every set of them, one by one.

The set S of modalities of a record is embedded as

    z_S = unit( sum_{m in S} z_m )

and searches the items of each modality that is not in S (recall@K, as in `retrieval`). With a
label, the class means of z_S in one split name the items of another by their z_T, for every S and
T: the sets at hand differ between training and deployment (P246), and S = T is the diagonal.

    prediction_i = argmax_c z_T,i · unit( mean_{j of c} z_S,j )

Paper: P246, its evaluation.

Decided here: records that show equal strings in all of S are one item; z_S is the zero vector where
embeddings cancel out, which ties with everything and is never right. M modalities have
M (2^(M-1) - 1) searches and (2^M - 1)^2 pairs of S and T.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.features import once
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks, unit_or_zero
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    label: str | None = None,
    fit: str | None = None,
    at: Sequence[int] = (1, 5, 10),
) -> Figures:
    """Retrieval by every set of modalities, and naming a label by every two.

    Args:
      embedded: the split that is judged.
      model: encodes the split that the class means are taken of.
      label: which label is named; None: none is.
      fit: the split of the class means; None: that which the model was trained on.
      at: the K of recall@K.

    Returns:
      Under `removal/<a>+<b>_to_<target>/`: `recall@K`; `chance@K`, that of a random order; the
      numbers of `queries` and of items in the `gallery`. Under `removal_<label>/<S>_on_<T>/`, class
      means of S and items of T: `accuracy`; `chance`, the accuracy of always naming the class most
      frequent in `fit`; `count` of items. Items of a class that `fit` has none of count as wrong,
      and so do ties.

    Raises:
      InputError: there is one modality only; or what `fitted_means` says.
    """
    modalities = several(embedded)
    figures: Figures = {}
    for target in modalities:
        for those in subsets([one for one in modalities if one != target]):
            found = searched(embedded, those, target, at)
            name = f"removal/{'+'.join(those)}_to_{target}"
            figures |= {f"{name}/{metric}": figure for metric, figure in found.items()}
    if label is None:
        return figures
    fitting = fitting_split(embedded, model, label, fit)
    means_of = {those: class_means(fitting, those, label) for those in subsets(modalities)}
    for tested in subsets(modalities):
        record = distinct(embedded, tested, label)
        z_NxD, label_N = fused(embedded, tested)[record], embedded.labels[label][record]
        concept_N = embedded.labels["concept"][record]
        for fitted, means in means_of.items():
            name = f"removal_{label}/{'+'.join(fitted)}_on_{'+'.join(tested)}"
            figures[f"{name}/accuracy"] = PerItem(named(z_NxD, label_N, means), concept_N)
            figures[f"{name}/chance"] = float(np.mean(label_N == means.largest))
            figures[f"{name}/count"] = float(len(record))
    return figures


def several(embedded: Embedded) -> list[str]:
    """The modalities of a split.

    Raises:
      InputError: there is only one, or no record, or some records lack one.
    """
    if len(embedded.z) < 2:
        raise InputError(f"'{embedded.split}' has only {list(embedded.z)}: nothing can be left out")
    if not len(embedded.ids):
        raise InputError(f"the split '{embedded.split}' has no records to evaluate")
    for modality in embedded.z:
        if not embedded.has(modality).all():
            raise InputError(
                f"some records of '{embedded.split}' have no '{modality}': what a modality adds "
                "can only be told where all are there"
            )
    return list(embedded.z)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All but the empty one, small ones first."""
    sizes = range(1, len(modalities) + 1)
    return [those for size in sizes for those in itertools.combinations(modalities, size)]


def searched(embedded: Embedded, those: Sequence[str], target: str, at: Sequence[int]) -> Figures:
    """Recall of the target's items by what `those` modalities say together."""
    query, gallery = distinct(embedded, those, "concept"), items(embedded, target, "concept")
    label_Q, label_G = (embedded.labels["concept"][record] for record in (query, gallery))
    z_GxD = check_unit(embedded.z[target][gallery], target)
    rank_Q = ranks(fused(embedded, those)[query], z_GxD, label_Q, label_G)
    right_Q = right_answers(label_Q, label_G)
    figures: Figures = {}
    for k in at:
        figures[f"recall@{k}"] = PerItem(rank_Q <= k, label_Q)
        figures[f"chance@{k}"] = chance(right_Q, len(gallery), k)
    return figures | {"queries": float(len(query)), "gallery": float(len(gallery))}


def fused(embedded: Embedded, those: Sequence[str]) -> np.ndarray:
    """The modalities' embeddings of every record as one."""
    return fuse(check_unit(embedded.z[one], one) for one in those)


def fuse(z: Iterable[np.ndarray]) -> np.ndarray:
    """unit(sum of unit rows): z_NxD, float32."""
    return unit_or_zero(np.sum([z_NxD.astype(np.float64) for z_NxD in z], axis=0)).astype(
        np.float32
    )


def distinct(embedded: Embedded, those: Sequence[str], label: str) -> np.ndarray:
    """Record numbers that stand for the distinct items of several modalities together.

    Records that show the same strings in all of them under the same label are one item.
    """
    first_N = np.zeros(len(embedded.ids), np.int64)
    for modality in those:
        record = items(embedded, modality, label)
        if len(record) == len(first_N):
            return record
        shown, label_N = embedded.shown[modality], embedded.labels[label]
        number = {(shown[i], int(label_N[i])): i for i in record}
        item_N = np.array([number[words, int(of)] for words, of in zip(shown, label_N)])
        _, first_N = np.unique(first_N * len(item_N) + item_N, return_inverse=True)
    return np.sort(np.unique(first_N, return_index=True)[1])


class ClassMeans(NamedTuple):
    value_C: np.ndarray  # of the label, ascending
    z_CxD: np.ndarray  # the direction of the class's mean; zero where it has none
    largest: int  # the value that most items have


def fitting_split(embedded: Embedded, model: Model, label: str, fit: str | None) -> Embedded:
    """The split that class means are taken of, with the modalities of `embedded`.

    Raises:
      InputError: it is not another one, or has no value of the label in common with `embedded`.
    """
    fit = model.settings.source.get("split") if fit is None else fit
    if fit in (None, embedded.split):
        raise InputError(
            f"class means that name '{embedded.split}' are those of another split: give it as 'fit'"
        )
    if label not in embedded.label_names:  # a made-up concept says nothing across splits
        near = nearest(label, embedded.label_names)
        raise InputError(f"the records of '{embedded.split}' have no label '{label}'.{near}")
    modalities = list(embedded.z)
    fitting = once(model, (fit, *modalities), lambda: model.embed(fit, modalities))
    if not np.isin(embedded.labels[label], fitting.labels[label]).any():
        raise InputError(
            f"'{embedded.split}' and '{fit}' have no '{label}' in common, so that class means of "
            "the one name none of the other: give another 'label' or 'fit'"
        )
    return fitting


def class_means(fitting: Embedded, those: Sequence[str], label: str) -> ClassMeans:
    """Of the distinct items of `those` modalities together."""
    record = distinct(fitting, those, label)
    value_C, class_N, of_C = np.unique(
        fitting.labels[label][record], return_inverse=True, return_counts=True
    )
    z_NxD = fused(fitting, those)[record]
    sum_CxD = np.zeros((len(value_C), z_NxD.shape[1]))
    np.add.at(sum_CxD, class_N, z_NxD)
    return ClassMeans(value_C, unit_or_zero(sum_CxD), int(value_C[of_C.argmax()]))


def named(z_NxD: np.ndarray, label_N: np.ndarray, means: ClassMeans) -> np.ndarray:
    """Whether the mean of each row's own class is nearest to it, alone: (N,) bool."""
    known_N = np.isin(label_N, means.value_C)
    right_N = np.zeros(len(label_N), bool)
    right_N[known_N] = ranks(z_NxD[known_N], means.z_CxD, label_N[known_N], means.value_C) == 1
    return right_N
