"""Robustness to attacks on texts: a word is left out, or another stands in its place.

The attack makes the cosine of a text with its own record's partner in another modality smaller. For
each word that may be changed, greedily:

    i = argmin_i cos(z(text without word i), z_partner)        the word that matters most
    text' = argmin of cos(z(.), z_partner) over the text, the text without word i, and the text with
            each of some other words in its place

As P144 attacks the captions of a retrieval set, a word each, and P142 adds words to them; theirs
are words that a language model finds likely, and are carried over to other models.

Decided here: the other words are those of the split's own texts, some of them at random for each
text and round. No word is changed twice, one word always stays, and a text that none of these makes
worse stays as it is. The attack asks the model for embeddings alone. All items of the attacked
modality are attacked, also where they are the gallery, as in `adversarial`.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.adversarial import answered
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import items
from mmcl.evals.texts import Texts, texts
from mmcl.model import Model


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "text",
    to: str = "image",
    words: int = 1,
    candidates: int = 32,
    label: str = "concept",
    at: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Figures:
    """Retrieval with the texts attacked, beside that with them as they are.

    Args:
      embedded: the split.
      model: is attacked.
      modality: of the texts.
      to: of the partners.
      words: how many of each text may be changed.
      candidates: how many other words are tried in the place of one.
      label: items with the same value are right answers of each other.
      at: the K of recall@K.
      seed: of the other words.

    Returns:
      Under `text_attack/<from>_to_<to>/`, both ways: `clean/recall@K` and `attacked/recall@K`;
      `attacked/success`, the share that has no right answer first any more, of the queries that had
      one; `clean/chance@K` of a random order; `clean/count` of queries. Under `text_attack/`:
      `clean/cosine` and `attacked/cosine` with the partner; `attacked/words` that were changed.
    """
    if words < 1 or candidates < 0:
        raise InputError(f"words={words}, candidates={candidates}: 1 or more, and 0 or more")
    if modality == to:
        raise InputError(f"'{modality}' is no partner of itself: name another modality")
    record, gallery = items(embedded, modality, label), items(embedded, to, label)
    z_to = check_unit(embedded.z[to], to)
    read = texts(embedded, model, modality, record)
    z = {"clean": check_unit(embedded.z[modality][record], modality)}
    z["attacked"], changed_N = attacked(read, z_to[record], words, candidates, seed)
    concept_N = embedded.labels["concept"][record]
    figures: Figures = {
        f"{name}/cosine": PerItem(np.sum(z_NxD * z_to[record], axis=1), concept_N)
        for name, z_NxD in z.items()
    }
    figures["attacked/words"] = PerItem(changed_N, concept_N)
    label_N, label_M = embedded.labels[label][record], embedded.labels[label][gallery]
    forth = {name: ranks(z_NxD, z_to[gallery], label_N, label_M) for name, z_NxD in z.items()}
    back = {name: ranks(z_to[gallery], z_NxD, label_M, label_N) for name, z_NxD in z.items()}
    figures |= answered(f"{modality}_to_{to}", forth, label_N, label_M, at)
    figures |= answered(f"{to}_to_{modality}", back, label_M, label_N, at)
    return {f"text_attack/{name}": figure for name, figure in figures.items()}


def attacked(
    read: Texts, partner_NxD: np.ndarray, words: int, candidates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """z_NxD of the texts, attacked, and how many words of each were changed."""
    vocabulary = sorted({word for text in read.text_N for word in text.split()})
    rng_N = [np.random.default_rng([seed, n]) for n in range(len(read.text_N))]
    z, changed = [], []
    for start in range(0, len(read.text_N), read.model.batch_size):
        some = slice(start, start + read.model.batch_size)
        best_R = [text.split() for text in read.text_N[some]]
        free_R = [list(range(len(best))) for best in best_R]  # words that were not changed
        for _ in range(words):
            out_R = [[left_out(b, i) for i in free] or [b] for b, free in zip(best_R, free_R)]
            matters_R, _ = lowest(read, out_R, partner_NxD[some])
            tried_R = [
                tries(best, free[most], rng, vocabulary, candidates) if free else [best]
                for best, free, most, rng in zip(best_R, free_R, matters_R, rng_N[some])
            ]
            lowest_R, z_RxD = lowest(read, tried_R, partner_NxD[some])
            best_R = [tried[k] for tried, k in zip(tried_R, lowest_R)]
            for free, most, k in zip(free_R, matters_R, lowest_R):
                if k > 0:
                    del free[most]
        z.append(z_RxD)
        changed += [len(best) - len(free) for best, free in zip(best_R, free_R)]
    return np.concatenate(z), np.array(changed)


def tries(
    words: list[str], i: int, rng: np.random.Generator, vocabulary: list[str], candidates: int
) -> list[list[str]]:
    """The text as it is, without word i, and with others in its place."""
    others = rng.choice(vocabulary, min(candidates, len(vocabulary)), replace=False)
    return [words, left_out(words, i), *(put(words, i, str(other)) for other in others)]


def left_out(words: list[str], i: int) -> list[str]:
    """Without word i, whose place stays; as it is where no other word is left."""
    return put(words, i, "") if sum(map(bool, words)) > 1 else words


def put(words: list[str], i: int, word: str) -> list[str]:
    return [*words[:i], word, *words[i + 1 :]]


def lowest(
    read: Texts, tried_R: list[list[list[str]]], partner_RxD: np.ndarray
) -> tuple[list[int], np.ndarray]:
    """Of each record the number of the try that is farthest from the partner, and its z_RxD."""
    z_TxD = read.encode([" ".join(filter(None, one)) for tried in tried_R for one in tried])
    count_R = [len(tried) for tried in tried_R]
    cosine_T = np.sum(z_TxD * np.repeat(partner_RxD, count_R, axis=0), axis=1)
    first_R = np.cumsum(count_R) - count_R
    found = [int(np.argmin(one)) for one in np.split(cosine_T, first_R[1:])]
    return found, z_TxD[first_R + found]
