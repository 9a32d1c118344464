"""Texts with their words coloured, the stronger the more salient.

A word has the sum over its tokens. Which these are is found by tokenising the text up to the end of
each word: what that shares with the tokens of the whole text belongs to it. Hashed n-grams overlap,
so each is shared out evenly among its bytes, and letters are coloured. Where neither works, the
places of the tokens are.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from data_pipelines.transforms import ngrams
from mmcl.evals.saliency import METHODS, Explained

Transform = Callable[..., Any]
ROW = Markup(
    '<tr>{}<td class="left" style="padding-left: 0.7rem">{}</td><td class="left">{}</td></tr>'
)


class Units(NamedTuple):
    """What is coloured of a text."""

    names: list[str]
    share_UxT: np.ndarray  # how much of each token is a unit's
    between: str = " "


def coloured(
    found: Sequence[Explained],
    captions: Sequence[str],
    label: str,
    texts: Sequence[str],
    transform: Transform,
) -> Markup:
    """A table with the text of every record, once for each method.

    Each map is drawn from its least (or 0, where some of it is negative) to its greatest value.

    Args:
        captions: what stands beside the texts.
        transform: the last, which made their ids.
    """
    maps = {
        name: [map_of for of in found for map_of in of.maps[name]]
        for name in METHODS
        if name in found[0].maps
    }
    ids = [id_L[there_L] for of in found for id_L, there_L in zip(of.value, of.there)]
    masks = [there_L for of in found for there_L in of.there]
    rows = Markup()
    for i, (caption, text) in enumerate(zip(captions, texts)):
        of_text = units(transform, text, ids[i])
        for k, (name, of_method) in enumerate(maps.items()):
            head = Markup('<th rowspan="{}">{}</th>').format(len(maps), caption) if k == 0 else ""
            told = spans(of_text, of_method[i][masks[i]])
            rows += ROW.format(head, name.replace("_", " "), told)
    return Markup('<table aria-label="{}"><tbody>{}</tbody></table>').format(label, rows)


def spans(of_text: Units, map_T: np.ndarray) -> Markup:
    """The units, each before its colour."""
    style = "background:color-mix(in srgb, var(--c1) {}%, transparent)"
    parts = [
        Markup('<span style="{}">{}</span>').format(style.format(round(100 * part)), name)
        for name, part in zip(of_text.names, strength(of_text.share_UxT @ map_T))
    ]
    return Markup(of_text.between).join(parts)


def strength(map_of: np.ndarray) -> np.ndarray:
    """From 0, the least (or 0, where some is negative), to 1, the greatest."""
    low, high = max(float(map_of.min()), 0.0), float(map_of.max())
    return ((map_of.astype(np.float64) - low) / max(high - low, 1e-12)).clip(0, 1)


def units(transform: Transform, text: str, id_T: np.ndarray) -> Units:
    """Words, else letters, else the places of tokens."""
    found = words(transform, text, id_T) or letters(transform, text, id_T)
    return found or Units([str(t) for t in range(len(id_T))], np.eye(len(id_T)))


def words(transform: Transform, text: str, id_T: np.ndarray) -> Units | None:
    """None where the tokens do not come word by word. A mark of the start is no word's, one of the
    end that of none or the last.
    """

    def shared(part: str) -> int:
        """How many tokens a text begins with that the whole text begins with too."""
        made = transform(part, rng=np.random.default_rng(0), train=False)
        pairs = zip(made["value"][made["mask"]], id_T)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    spans = [one.span() for one in re.finditer(r"\S+", text)]
    ends = [shared(text[:end]) for _, end in spans[:-1]]
    ends = [shared(""), *ends, shared(text + " x")] if spans else []
    ends = list(itertools.accumulate(ends, max))
    if not ends or len(id_T) - ends[-1] > 1:
        return None
    token_T = np.arange(len(id_T))
    share = [(start <= token_T) & (token_T < end) for start, end in itertools.pairwise(ends)]
    return Units([text[start:end] for start, end in spans], np.array(share, np.float64))


def letters(transform: Transform, text: str, id_T: np.ndarray) -> Units | None:
    """None where the tokens are no hashed n-grams."""
    if getattr(transform, "func", None) is not ngrams.hashed:
        return None
    signature = inspect.signature(transform)
    sizes = signature.parameters["sizes"].default
    bytes_ = 2 + len(text.encode())  # marks of start and end
    grams = [slice(start, start + n) for n in sizes for start in range(bytes_ - n + 1)]
    share_BxT = np.zeros((bytes_, len(id_T)))
    for t, gram in enumerate(grams[: len(id_T)]):
        share_BxT[gram, t] = 1 / (gram.stop - gram.start)
    of_byte = np.repeat(np.arange(len(text)), [len(letter.encode()) for letter in text])
    share_UxT = np.zeros((len(text), len(id_T)))
    np.add.at(share_UxT, of_byte, share_BxT[1:-1])
    return Units(list(text), share_UxT, between="")
