"""One right caption and some wrong ones: which is nearest to the picture?

    accuracy = 1/N sum_i [ s(picture_i, right_i) > max_w s(picture_i, wrong_iw) ]

with cosines s, as VG-Relation and VG-Attribution are judged (Yuksekgonul et al. 2022, ARO,
arXiv 2210.01936); its Order sets, and others with hard negatives, can be written so. A tie fails.
"""

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.caption_retrieval import own_captions
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import TIE, check_unit
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    text: str = "text",
    group: str | None = None,
    cluster: str = "concept",
) -> Figures:
    """How often the first of a record's captions is nearer than all the others.

    Args:
      embedded: the split.
      model: encodes the captions, of which `embedded` has the first only.
      modality: what the captions are of.
      text: the entry of the records with the captions, a list of two strings or more.
      group: a label over whose values accuracy is averaged too.
      cluster: the label of what is drawn together for intervals, as cases of one picture.

    Returns:
      Under `caption_choice/`: `accuracy`; with a group `mean_per_<group>`, the mean of the
      accuracies of its values; `chance`; `count` of records.
    """
    for what, name, known in [
        ("modality", modality, list(embedded.z)),
        ("label", cluster, list(embedded.labels)),
        ("label", group or cluster, list(embedded.labels)),
    ]:
        if name not in known:
            raise InputError(f"no {what} '{name}' in '{embedded.split}'.{nearest(name, known)}")
    of_records = own_captions(embedded, model, text, None)
    count_N = np.array([len(own) for own in of_records])
    if (count_N < 2).any():
        id = embedded.ids[int(np.argmax(count_N < 2))]
        raise InputError(f"'{id}' has one caption as its '{text}', and nothing to choose from")
    z_NxD = check_unit(embedded.z[modality], modality).astype(np.float64)
    words = [caption for own in of_records for caption in own]
    z_CxD = check_unit(model.encode(text, words), text)
    cosine_C = np.einsum("cd,cd->c", z_CxD, np.repeat(z_NxD, count_N, axis=0))
    right = np.cumsum(count_N) - count_N
    right_N = cosine_C[right]
    cosine_C[right] = -np.inf
    hit_N = right_N - np.maximum.reduceat(cosine_C, right) >= TIE
    cluster_N = embedded.labels[cluster]
    figures: Figures = {"accuracy": PerItem(hit_N, cluster_N)}
    if group is not None:
        _, of_N, times = np.unique(embedded.labels[group], return_inverse=True, return_counts=True)
        figures[f"mean_per_{group}"] = PerItem(hit_N, cluster_N, 1 / times[of_N])
    figures |= {"chance": float(np.mean(1 / count_N)), "count": float(len(hit_N))}
    return {f"caption_choice/{name}": figure for name, figure in figures.items()}
