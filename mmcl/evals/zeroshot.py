"""Zero-shot classification: the nearest class name is the prediction.

After Radford et al. 2021 (arXiv 2103.00020), section 3.1: every class name is filled into every
template, the unit embeddings of a class's prompts are averaged, and the mean is scaled to unit
length again. A class that ties with the right one counts as nearer.

The expected calibration error of Guo et al. 2017 (arXiv 1706.04599) is

    sum_m |B_m| / N · | accuracy(B_m) - confidence(B_m) |,   p_i = softmax_c(scale · z_i·z_c)

where bin m of 15 holds the items of which max p_i is in ((m - 1) / 15, m / 15], and the scale is
the one that the model learned. Decided here: softmax also for a model that learned pairwise
sigmoids, whose bias cancels. The accuracy of the worst group is that of P312.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals import pairs
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import items
from mmcl.model import Model

BINS = 15


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    text: str = "text",
    label: str = "group",
    templates: Sequence[str] = ("{}",),
    group: str | None = None,
) -> Figures:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split; `embedded.label_names[label]` are the classes, in it or not.
      model: encodes the prompts, and knows its logit scale.
      modality: what is classified.
      text: the modality that the prompts are written in.
      label: which label is predicted.
      templates: prompts with `{}` where the class name goes.
      group: a label that parts the items into groups (who drew them, what is behind them).

    Returns:
      Under `zeroshot_<label>/`: `top1`; `top5` where there are more than 5 classes;
      `mean_per_class`, top-1 averaged over the classes that occur; `worst_group`, top-1 of the
      group where it is lowest, and how many items it has, where there is a `group`: the interval
      is of that group, and does not know that it was chosen as the worst; `calibration_error`,
      where the model has a logit scale; `chance`, 1 / classes, the top-1 (and mean per class) of a
      uniform guess; `count` of items.
    """
    names = class_names(embedded, label)
    record = items(embedded, modality, label)
    label_N = embedded.labels[label][record]
    z_NxD = check_unit(embedded.z[modality][record], modality)
    z_CxD = class_embeddings(names, templates, lambda prompts: model.encode(text, prompts))
    rank_N = ranks(z_NxD, z_CxD, label_N, np.arange(len(names)))
    concept_N = embedded.labels["concept"][record]
    _, class_N, of_class = np.unique(label_N, return_inverse=True, return_counts=True)
    figures: Figures = {"top1": PerItem(rank_N == 1, concept_N)}
    if len(names) > 5:
        figures["top5"] = PerItem(rank_N <= 5, concept_N)
    figures["mean_per_class"] = PerItem(rank_N == 1, concept_N, 1 / of_class[class_N])
    if group is not None:
        worst = worst_group(rank_N == 1, _groups(embedded, group)[record])
        figures["worst_group"] = PerItem(rank_N[worst] == 1, concept_N[worst])
        figures["worst_group_count"] = float(len(worst))
    scale = model.logit_scale
    if scale is not None:
        confidence_N = confidence(z_NxD, z_CxD, scale)
        figures["calibration_error"] = calibration_error(confidence_N, rank_N == 1)
    figures["chance"] = 1 / len(names)
    figures["count"] = float(len(record))
    return {f"zeroshot_{label}/{name}": figure for name, figure in figures.items()}


def class_names(embedded: Embedded, label: str) -> list[str]:
    """The names of a label's values, as words.

    Raises:
        InputError: they have none.
    """
    if label not in embedded.label_names:
        named = list(embedded.label_names)
        raise InputError(f"the values of label '{label}' have no names: only those of {named} have")
    return [" ".join(name.replace("_", " ").split()) for name in embedded.label_names[label]]


def class_embeddings(
    names: Sequence[str],
    templates: Sequence[str],
    encode: Callable[[list[str]], np.ndarray],
) -> np.ndarray:
    """One unit row a class, the mean direction of its prompts: z_CxD, float64."""
    if not templates or not all("{}" in template for template in templates):
        raise InputError("zero-shot templates must each hold '{}', where the class name goes")
    prompts = [template.replace("{}", name) for name in names for template in templates]
    z_PxD = check_unit(encode(prompts), "class prompt").astype(np.float64)
    z_CxD = z_PxD.reshape(len(names), len(templates), -1).mean(axis=1)
    return z_CxD / np.linalg.norm(z_CxD, axis=1, keepdims=True)


def confidence(z_NxD: np.ndarray, z_CxD: np.ndarray, scale: float) -> np.ndarray:
    """The largest of each row's softmax_c(scale · z_i·z_c): (N,) float64."""
    _, score_Nx1 = pairs.nearest(z_NxD, z_CxD, 1)
    lse_N = jax.device_get(_lse(pairs.side(z_NxD), pairs.side(z_CxD), np.float32(scale)))
    largest_N = scale * score_Nx1[:, 0].astype(np.float64)
    return np.minimum(np.exp(largest_N - lse_N[: len(z_NxD)]), 1)


def calibration_error(confidence_N: np.ndarray, hit_N: np.ndarray) -> float:
    """How far accuracy is from confidence, over bins of equal width."""
    bin_N = np.ceil(confidence_N * BINS).astype(np.int64)
    apart_B = np.bincount(bin_N, weights=hit_N - confidence_N)
    return float(np.abs(apart_B).sum() / len(hit_N))


def worst_group(hit_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Which items are of the group that is hit least; of the lowest value where groups tie."""
    _, group_N = np.unique(group_N, return_inverse=True)
    accuracy = np.bincount(group_N, weights=hit_N) / np.bincount(group_N)
    return np.flatnonzero(group_N == np.argmin(accuracy))


def _groups(embedded: Embedded, group: str) -> np.ndarray:
    if group not in embedded.labels:
        raise InputError(
            f"no label '{group}' in '{embedded.split}': it has {list(embedded.labels)}"
        )
    return embedded.labels[group]


@jax.jit
def _lse(rows: pairs.Side, cols: pairs.Side, scale: jax.Array) -> jax.Array:
    def scaled(row: pairs.Side, col: pairs.Side, scale: jax.Array, at: Any) -> Any:
        return {"it": scale * pairs.cosine(row, col)}

    return pairs.reduced(scaled, rows, cols, "logsumexp", "row", scale)
