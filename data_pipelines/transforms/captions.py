"""From the names and keywords of a thing to one caption."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.transforms import text


def describe(
    value: Mapping[str, Sequence[str]] | str,
    *,
    rng: np.random.Generator,
    train: bool,
    languages: Sequence[str] = ("en",),
    share: float = 1.0,
    keep: float = 0.5,
    nameless: float = 0.0,
    categories: float = 0.0,
) -> str:
    """ "dog face: animal, pet, puppy": a name as `text.choose` picks it, and keywords behind it.

    In evaluation all keywords in their order. In training each with probability `keep`, and of the
    categories each with probability `categories`, in random order; where some are left, they stand
    without the name with probability `nameless`, so that a word nobody has seen can still be
    understood by those beside it. A plain string stays as it is.
    """
    name = text.choose(value, rng=rng, train=train, languages=languages, share=share)
    if isinstance(value, str):
        return name
    words = list(value["keywords"])
    if train:
        words = [word for word in words if rng.random() < keep]
        words += [word for word in value.get("categories", ()) if rng.random() < categories]
    return _compose(name, words, rng, train, nameless)


def gloss(
    value: Mapping[str, Sequence[str]] | str,
    *,
    rng: np.random.Generator,
    train: bool,
    languages: Sequence[str] = ("en",),
    share: float = 1.0,
    keep: float = 0.5,
    nameless: float = 0.0,
) -> str:
    """ "dog face: animal, pet, puppy" from ["dog face", "animal", "pet", "puppy"] of one language.

    The language is one that `text.choose` would take. In evaluation all keywords in their order. In
    training each with probability `keep`, in random order; where some are left, they stand without
    the name with probability `nameless`. A plain string stays as it is.
    """
    if isinstance(value, str):
        return value
    spoken = {language: [language] for language in value}
    language = text.choose(spoken, rng=rng, train=train, languages=languages, share=share)
    name, *words = value[language]
    if train:
        words = [word for word in words if rng.random() < keep]
    return _compose(name, words, rng, train, nameless)


def _compose(
    name: str, words: Sequence[str], rng: np.random.Generator, train: bool, nameless: float
) -> str:
    if train:
        words = [words[i] for i in rng.permutation(len(words))]
        if words and rng.random() < nameless:
            return ", ".join(words)
    return f"{name}: {', '.join(words)}" if words else name
