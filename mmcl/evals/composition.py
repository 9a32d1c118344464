"""Two pictures and two captions of the same parts, put together differently: which go together?

For a pair of records with captions c0, c1 of pictures i0, i1 and cosines s,

    text  = s(c0, i0) > s(c1, i0)  and  s(c1, i1) > s(c0, i1)      each picture has its caption
    image = s(c0, i0) > s(c0, i1)  and  s(c1, i1) > s(c1, i0)      each caption has its picture
    group = text and image

the scores of Winoground (Thrush et al. 2022, arXiv 2204.03162), which CompA takes over for sounds
(P042) and EqBen for pictures that differ little (P257). Random cosines reach 1/4, 1/4 and 1/6.
Inequalities are strict: a tie fails. Decided here: a record whose partner is missing (it was
rejected, or the label has -1 for none) is left out. One right caption against wrong ones of the
same picture is what `caption_choice` judges.
"""

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import TIE, check_unit


def evaluate(
    embedded: Embedded,
    model: object,
    *,
    modality: str = "image",
    text: str = "text",
    pair: str = "pair",
) -> Figures:
    """The text, image and group score over the pairs of a split.

    Args:
      embedded: the split.
      model: not needed, nothing new is encoded.
      modality: what the captions are of.
      text: the modality of the captions.
      pair: the label whose value two records share.

    Returns:
      Under `composition_<pair>/`: `text`, `<modality>` and `group`, the shares of pairs; the
      `chance` of each as `text_chance` and so on; `count` of pairs.
    """
    for what, name, known in [
        ("modality", modality, list(embedded.z)),
        ("modality", text, list(embedded.z)),
        ("label", pair, list(embedded.labels)),
    ]:
        if name not in known:
            raise InputError(f"no {what} '{name}' in '{embedded.split}'.{nearest(name, known)}")
    if text == modality:
        raise InputError(f"'{text}' is compared with itself: name another modality")
    first_P, second_P = partners(embedded, pair)
    z_NxD = check_unit(embedded.z[modality], modality)
    z_words_NxD = check_unit(embedded.z[text], text)

    def cosine(caption_P: np.ndarray, of_P: np.ndarray) -> np.ndarray:
        return np.einsum("pd,pd->p", z_words_NxD[caption_P], z_NxD[of_P], dtype=np.float64)

    right_P, right_too_P = cosine(first_P, first_P), cosine(second_P, second_P)
    wrong_P, wrong_too_P = cosine(second_P, first_P), cosine(first_P, second_P)
    by_text_P = (right_P - wrong_P >= TIE) & (right_too_P - wrong_too_P >= TIE)
    by_other_P = (right_P - wrong_too_P >= TIE) & (right_too_P - wrong_P >= TIE)
    cluster_P = embedded.labels[pair][first_P]
    figures: Figures = {
        text: PerItem(by_text_P, cluster_P),
        f"{text}_chance": 1 / 4,
        modality: PerItem(by_other_P, cluster_P),
        f"{modality}_chance": 1 / 4,
        "group": PerItem(by_text_P & by_other_P, cluster_P),
        "group_chance": 1 / 6,
        "count": float(len(first_P)),
    }
    return {f"composition_{pair}/{name}": figure for name, figure in figures.items()}


def partners(embedded: Embedded, pair: str) -> tuple[np.ndarray, np.ndarray]:
    """The record numbers of the first and the second of each pair.

    Raises:
      InputError: more than two records share a value, or none do.
    """
    label_N = embedded.labels[pair]
    value, first, times = np.unique(label_N, return_index=True, return_counts=True)
    known = value >= 0
    if (times[known] > 2).any():
        worst = value[known][np.argmax(times[known])]
        raise InputError(
            f"'{pair}' {worst} is that of {times[known].max()} records of '{embedded.split}': a "
            "pair has two"
        )
    whole = known & (times == 2)
    if not whole.any():
        raise InputError(f"no two records of '{embedded.split}' share a '{pair}'")
    order = np.argsort(label_N, kind="stable")
    second = order[np.searchsorted(label_N[order], value, side="right") - 1]
    return first[whole], second[whole]
