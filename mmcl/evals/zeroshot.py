"""Zero-shot classification: the nearest class name is the prediction.

After Radford et al. 2021 (arXiv 2103.00020), section 3.1: every class name is filled into every
template, the unit embeddings of a class's prompts are averaged, and the mean is scaled to unit
length again.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.retrieval import items, ranks, unit_rows


def evaluate(
    embedded: Embedded,
    encode: Callable[[str, list[str]], np.ndarray],
    *,
    modality: str = "image",
    text: str = "text",
    label: str = "group",
    templates: Sequence[str] = ("{}",),
) -> dict[str, float]:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split; `embedded.label_names[label]` are the classes, in it or not.
      encode: (modality, raw values) -> unit rows.
      modality: what is classified.
      text: the modality that the prompts are written in.
      label: which label is predicted.
      templates: prompts with `{}` where the class name goes.

    Returns:
      Under `zeroshot_<label>/`: `top1`; `top5` where there are more than 5 classes;
      `mean_per_class`, top-1 averaged over the classes that occur; `chance`, 1 / classes, the
      top-1 (and mean per class) of a uniform guess; `count` of items. A class that ties with the
      right one counts as nearer.
    """
    if label not in embedded.label_names:
        named = list(embedded.label_names)
        raise InputError(f"the values of label '{label}' have no names: only those of {named} have")
    names = [" ".join(name.replace("_", " ").split()) for name in embedded.label_names[label]]
    record = items(embedded, modality, label)
    label_N = embedded.labels[label][record]
    rank_N = ranks(
        unit_rows(embedded.z[modality][record], modality),
        unit_rows(class_embeddings(names, templates, lambda prompts: encode(text, prompts)), text),
        label_N,
        np.arange(len(names)),
    )
    metrics = {"top1": float(np.mean(rank_N == 1))}
    if len(names) > 5:
        metrics["top5"] = float(np.mean(rank_N <= 5))
    per_class = [np.mean(rank_N[label_N == value] == 1) for value in np.unique(label_N)]
    metrics["mean_per_class"] = float(np.mean(per_class))
    metrics["chance"] = 1 / len(names)
    metrics["count"] = float(len(record))
    return {f"zeroshot_{label}/{name}": value for name, value in metrics.items()}


def class_embeddings(
    names: Sequence[str],
    templates: Sequence[str],
    encode: Callable[[list[str]], np.ndarray],
) -> np.ndarray:
    """One unit row a class, the mean direction of its prompts: z_CxD, float64."""
    if not templates or not all("{}" in template for template in templates):
        raise InputError("zero-shot templates must each hold '{}', where the class name goes")
    prompts = [template.replace("{}", name) for name in names for template in templates]
    z_PxD = unit_rows(encode(prompts), "class prompt")
    z_CxD = z_PxD.reshape(len(names), len(templates), -1).mean(axis=1)
    return z_CxD / np.linalg.norm(z_CxD, axis=1, keepdims=True)
