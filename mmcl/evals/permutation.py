"""The perceptual score: how much a prediction relies on a modality.

    score(m) = ( accuracy - mean_r accuracy_r(m) ) / accuracy

where in accuracy_r(m) the embeddings of modality m are permuted over the records, so that it says
of each record what is true of another: 0 if m is not relied upon, 1 if nothing is right without it.
Source: Gat, Schwartz and Schwing 2021 (P238, arXiv 2110.14375), normalised by the model's accuracy.

Paper: P238 (perceptual score).

Decided here: all modalities are fused as in `removal`, unit(sum of unit rows), for towers by
themselves have nothing that reads several. What is predicted is a label, by the nearest of the
class means of another split, or a modality, whose right item is to be found with all the others.
Only what is permuted changes: the class means and the gallery stay. A permutation may leave a
record in its place, or give it what another record of its class says, so that even a modality that
decides alone scores less than 1.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.removal import class_means, distinct, fitting_split, fuse, named, several
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.model import Model

Judge = Callable[[np.ndarray], np.ndarray]  # z_NxD of the judged records -> which are right


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    predict: str = "group",
    fit: str | None = None,
    permutations: int = 5,
    seed: int = 0,
) -> Figures:
    """How the accuracy of predicting a label or a modality falls with each modality permuted.

    Args:
      embedded: the split that is judged.
      model: encodes the split that the class means are taken of.
      predict: a label, or a modality of three or more.
      fit: the split of a label's class means; None: that which the model was trained on.
      permutations: how many are averaged.
      seed: of the permutations, which are the same for every modality.

    Returns:
      Under `perceptual_<predict>/`: `accuracy` (of a modality, recall@1); `chance`, that of naming
      the class most frequent in `fit`, or of a random order of the gallery; `count` of items. Under
      `perceptual_<predict>/<modality>/`: `score`, where anything is right; `drop`, what the
      accuracy loses; `permuted`, what is left. Ties are wrong, and so are classes that `fit` lacks.
    """
    if permutations < 1:
        raise InputError(f"permutations={permutations} should be 1 or more")
    those = [modality for modality in several(embedded) if modality != predict]
    if predict in embedded.z:
        record, judge, guess = _finding(embedded, predict, those)
    else:
        record, judge, guess = _naming(embedded, model, predict, those, fit)
    concept_N = embedded.labels["concept"][record]
    z = {modality: check_unit(embedded.z[modality][record], modality) for modality in those}
    right_N = judge(fuse(z.values()))
    name = f"perceptual_{predict}"
    figures: Figures = {
        f"{name}/accuracy": PerItem(right_N, concept_N),
        f"{name}/chance": guess,
        f"{name}/count": float(len(record)),
    }
    for modality in those:
        rng = np.random.default_rng(seed)
        right_PxN = []
        for _ in range(permutations):
            swapped = {modality: z[modality][rng.permutation(len(record))]}
            right_PxN.append(judge(fuse((z | swapped).values())))
        permuted_N = np.mean(right_PxN, axis=0)
        drop_N = right_N - permuted_N
        if right_N.any():
            figures[f"{name}/{modality}/score"] = float(drop_N.mean() / right_N.mean())
        figures[f"{name}/{modality}/drop"] = PerItem(drop_N, concept_N)
        figures[f"{name}/{modality}/permuted"] = PerItem(permuted_N, concept_N)
    return figures


def _naming(
    embedded: Embedded, model: Model, label: str, those: Sequence[str], fit: str | None
) -> tuple[np.ndarray, Judge, float]:
    """The records whose label is named, whether rightly, and how often by a guess."""
    if label not in embedded.labels:
        near = nearest(label, [*embedded.labels, *embedded.z])
        raise InputError(f"'{embedded.split}' has no label or modality '{label}'.{near}")
    means = class_means(fitting_split(embedded, model, label, fit), those, label)
    record = distinct(embedded, those, label)
    label_N = embedded.labels[label][record]
    guess = float(np.mean(label_N == means.largest))
    return record, lambda z_NxD: named(z_NxD, label_N, means), guess


def _finding(
    embedded: Embedded, target: str, those: Sequence[str]
) -> tuple[np.ndarray, Judge, float]:
    """The records of which a modality's item is found, whether rightly, and how often by chance."""
    if len(those) < 2:
        raise InputError(
            f"'{target}' can be found with '{those[0]}' only, which is all that is relied upon: "
            "predict a label"
        )
    record, gallery = distinct(embedded, those, "concept"), items(embedded, target, "concept")
    label_N, label_G = (embedded.labels["concept"][of] for of in (record, gallery))
    z_GxD = check_unit(embedded.z[target][gallery], target)
    guess = chance(right_answers(label_N, label_G), len(gallery), 1)
    return record, lambda z_NxD: ranks(z_NxD, z_GxD, label_N, label_G) == 1, guess
