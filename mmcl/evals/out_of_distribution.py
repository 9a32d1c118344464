"""Telling whether a picture is of any of the known classes, by how well it fits their names.

    cosine(x)  = max_c z_x·z_c
    softmax(x) = max_c softmax_c( z_x·z_c / temperature )

are the scores of an item x, higher where it is known; z_c are the prompts of the classes, as in
`zeroshot`. The second at temperature 1 is MCM (Ming et al. 2022, arXiv 2211.13445); such scores are
what P179 trains for. With in the items of the known classes and out all others,

    AUROC = P( score(in) > score(out) ) + 1/2 P( score(in) = score(out) )
    FPR95 = P( score(out) >= t ),  t the highest with P( score(in) >= t ) >= .95

Decided here: the known classes are those that occur in the judged split, for the names of others
would be found where they are. Intervals are as if t, and of AUROC the items out, were given.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import TIE, check_unit, nearest
from mmcl.evals.retrieval import items
from mmcl.evals.zeroshot import class_embeddings, class_names, confidence
from mmcl.model import Model

TPR = 0.95


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    out: str,
    modality: str = "image",
    text: str = "text",
    label: str = "group",
    templates: Sequence[str] = ("{}",),
    temperature: float = 1.0,
) -> Figures:
    """How well items of the split are told from those of another.

    Args:
      embedded: the split that is in the distribution.
      model: encodes the prompts and the other split.
      out: the split that is out of it.
      modality: what is judged.
      text: the modality that the prompts are written in.
      label: the classes.
      templates: prompts with `{}` where the class name goes.
      temperature: of the softmax.

    Returns:
      Under `out_of_distribution/<out>/`: `cosine_auroc`, `cosine_fpr95`, `softmax_auroc` and
      `softmax_fpr95`, where `auroc_chance` and `fpr95_chance` are those of scores that tell
      nothing; the numbers of items `in` and `out`, and of `classes`.
    """
    if temperature <= 0:
        raise InputError(f"temperature={temperature} should be above 0")
    if out == embedded.split:
        raise InputError(f"'{out}' is the judged split itself: name another as 'out'")
    all_names = class_names(embedded, label)
    record = items(embedded, modality, label)
    other = model.embed(out, [modality])
    record_out = items(other, modality, "concept")
    known = np.unique(embedded.labels[label][record])
    if len(known) < 2:
        raise InputError(
            f"all items of '{embedded.split}' have one '{label}': softmax needs two or more"
        )
    names = [all_names[c] for c in known]
    z_CxD = class_embeddings(names, templates, lambda prompts: model.encode(text, prompts))
    z_NxD = check_unit(embedded.z[modality][record], modality)
    z_out_MxD = check_unit(other.z[modality][record_out], modality)
    cluster_N, cluster_M = embedded.labels["concept"][record], other.labels["concept"][record_out]
    figures: Figures = {}
    scores = {
        "cosine": [largest_cosine(z, z_CxD) for z in (z_NxD, z_out_MxD)],
        "softmax": [confidence(z, z_CxD, 1 / temperature) for z in (z_NxD, z_out_MxD)],
    }
    for name, (score_N, score_M) in scores.items():
        figures[f"{name}_auroc"] = PerItem(beaten(score_N, score_M), cluster_N)
        figures[f"{name}_fpr95"] = PerItem(score_M >= threshold(score_N), cluster_M)
    figures |= {"auroc_chance": 0.5, "fpr95_chance": TPR, "classes": float(len(known))}
    figures |= {"in": float(len(record)), "out": float(len(record_out))}
    return {f"out_of_distribution/{out}/{name}": figure for name, figure in figures.items()}


def largest_cosine(z_NxD: np.ndarray, z_CxD: np.ndarray) -> np.ndarray:
    """max_c z_x·z_c, in steps of `TIE`, within which rounding decides: (N,) float64."""
    _, cosine_Nx1 = nearest(z_NxD, z_CxD, 1)
    return np.round(cosine_Nx1[:, 0].astype(np.float64) / TIE) * TIE


def beaten(score_N: np.ndarray, score_out_M: np.ndarray) -> np.ndarray:
    """The share of the others whose score each score beats, ties half: their mean is the AUROC."""
    sorted_M = np.sort(score_out_M)
    below_N, upto_N = (np.searchsorted(sorted_M, score_N, side) for side in ("left", "right"))
    return (below_N + upto_N) / (2 * len(sorted_M))


def threshold(score_N: np.ndarray) -> float:
    """The highest score that 95 % of these reach."""
    reach = -int(-TPR * len(score_N) // 1)  # rounded up
    return float(np.sort(score_N)[len(score_N) - reach])
