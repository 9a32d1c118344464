"""Robustness to corruptions: what is left of retrieval and of zero-shot classification.

Corruptions at five severities, after ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261);
relative is accuracy on corrupted inputs / accuracy on clean ones, both from 0. Which there are:

| inputs | | corrupted |
|---|---|---|
| uint8 (H, W, 3) | `corruptions_pictures.py` | after the transforms, as the tower gets them |
| strings | `corruptions_text.py` | before they are cleaned and tokenised |
| other floats | `corruptions_floats.py` | after the transforms |

Decided here: for pictures, their size and how they were resampled make no difference but for JPEG,
whose blocks are of 8 pixels whatever the size. So numbers compare models that take pictures of one
size, and not with those of ImageNet-C. What is random hangs on the seed, the record and the
corruption, and is the same at all severities. What is corrupted are the queries; what they search
stays as it was.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.corrupted import SEVERITIES, corrupted, known
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.evals.zeroshot import class_embeddings, class_names
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    label: str | None = None,
    templates: Sequence[str] = ("{}",),
    corruptions: Sequence[str] | None = None,
    at: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Figures:
    """Retrieval from corrupted inputs, and naming a label of them.

    Args:
      embedded: the split.
      model: encodes the corrupted inputs.
      modality: whose inputs are corrupted: pictures, texts or floats.
      to: what they search, and what the classes' prompts are written in.
      label: which label is named too; None: none is.
      templates: prompts with `{}` where the class name goes.
      corruptions: which of its kind are judged; None: all.
      at: the K of recall@K.
      seed: of what is random.

    Returns:
      Under `corruptions/<modality>_to_<to>/`: `clean/recall@K`; `<corruption>/recall@K`, the mean
      over severities; `severity_<s>/recall@K`, the mean over corruptions; `mean/recall@K`, that
      over all; `relative/recall@K`, mean over clean, where anything clean is right;
      `clean/chance@K` of a random order; `clean/count` of inputs. With a label, under
      `corruptions_<label>/`, the same of `top1`.
    """
    record, gallery = items(embedded, modality, "concept"), items(embedded, to, "concept")
    there = known(embedded, model, modality)
    chosen = list(there) if corruptions is None else list(corruptions)
    for name in chosen:
        if name not in there:
            raise InputError(f"no corruption '{name}'.{nearest(name, there)}")
    if not chosen:
        raise InputError(f"no corruptions: give some of {list(there)}, or leave them out")
    concept_N = embedded.labels["concept"]
    searches = [Search(check_unit(embedded.z[to][gallery], to), concept_N[gallery], concept_N)]
    if label is not None:
        searches.append(classes(embedded, model, to, label, templates))
    those = {name: there[name] for name in chosen}
    made = corrupted(embedded, model, record, modality, those, seed)
    z_clean = check_unit(embedded.z[modality][record], modality)
    rank, *of_class = searched(z_clean, record, made, searches, len(chosen))
    right_N = right_answers(concept_N[record], concept_N[gallery])
    figures: Figures = {}
    for k in at:
        figures |= summed_up(f"recall@{k}", chosen, rank.clean <= k, rank.corrupted <= k,
                             concept_N[record])  # fmt: skip
        figures[f"clean/chance@{k}"] = chance(right_N, len(gallery), k)
    figures["clean/count"] = float(len(record))
    figures = {f"corruptions/{modality}_to_{to}/{name}": it for name, it in figures.items()}
    for it in of_class:
        named = summed_up("top1", chosen, it.clean == 1, it.corrupted == 1, concept_N[record])
        guess = {"clean/chance": 1 / len(searches[1].label_G), "clean/count": float(len(record))}
        named |= guess
        figures |= {f"corruptions_{label}/{name}": figure for name, figure in named.items()}
    return figures


class Search(NamedTuple):
    """What corrupted inputs search."""

    z_GxD: np.ndarray
    label_G: np.ndarray
    label_N: np.ndarray  # of every record: what is a right answer


class Ranks(NamedTuple):
    """Of each input's best right answer."""

    clean: np.ndarray  # (N,)
    corrupted: np.ndarray  # (corruptions, severities, N)


def classes(
    embedded: Embedded, model: Model, text: str, label: str, templates: Sequence[str]
) -> Search:
    """The classes of a label, as in `zeroshot`."""
    names = class_names(embedded, label)
    z_CxD = class_embeddings(names, templates, lambda prompts: model.encode(text, prompts))
    return Search(z_CxD, np.arange(len(names)), embedded.labels[label])


def searched(
    clean_NxD: np.ndarray,
    record_N: np.ndarray,
    made: Iterable[tuple[np.ndarray, np.ndarray]],
    searches: Sequence[Search],
    corruptions: int,
) -> list[Ranks]:
    """The ranks in every search, which alone are kept of the corrupted inputs.

    Args:
      made: what `corrupted` gives.
    """
    parts: list[list[np.ndarray]] = [[] for _ in searches]
    for record_R, z_VxD in made:
        shape = corruptions, SEVERITIES, len(record_R)
        for part, (z_GxD, label_G, label_N) in zip(parts, searches):
            label_V = np.broadcast_to(label_N[record_R], shape).ravel()
            part.append(ranks(z_VxD, z_GxD, label_V, label_G).reshape(shape))
    return [
        Ranks(ranks(clean_NxD, z_GxD, label_N[record_N], label_G), np.concatenate(part, axis=-1))
        for part, (z_GxD, label_G, label_N) in zip(parts, searches)
    ]


def summed_up(
    metric: str,
    chosen: Sequence[str],
    clean_N: np.ndarray,
    hit_CxSxN: np.ndarray,
    cluster_N: np.ndarray,
) -> Figures:
    """Hits at each corruption, at each severity, and at all together."""
    over = {f"{name}/{metric}": hit_CxSxN[c].mean(axis=0) for c, name in enumerate(chosen)}
    for s in range(SEVERITIES):
        over[f"severity_{s + 1}/{metric}"] = hit_CxSxN[:, s].mean(axis=0)
    over = {f"clean/{metric}": clean_N, **over, f"mean/{metric}": hit_CxSxN.mean(axis=(0, 1))}
    figures: Figures = {name: PerItem(value_N, cluster_N) for name, value_N in over.items()}
    if clean_N.any():
        figures[f"relative/{metric}"] = float(hit_CxSxN.mean() / clean_N.mean())
    return figures
