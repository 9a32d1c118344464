"""From the names and keywords of a thing to one caption, or to one in each language."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.faults import Fault
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
    return _glossed(value[language], rng, train, keep, nameless)


def each_language(
    value: Mapping[str, Sequence[str] | bytes] | str | bytes,
    *,
    rng: np.random.Generator,
    train: bool,
    languages: Sequence[str],
    keep: float = 0.5,
    nameless: float = 0.0,
) -> list[str | bytes]:
    """What there is in each of `languages`, in their order: all of it is for `views.each`, one of
    it for `views.choose`.

    A language's name and keywords become one caption as in `gloss`, its caption alone stays, and so
    does a clip in which somebody speaks it (bytes). A string or a clip alone is a list of one.

    Raises:
        Fault: `missing_caption`: there is none in any of `languages`.
    """
    if isinstance(value, str | bytes):
        return [value]
    spoken = [value[language] for language in languages if value.get(language)]
    if not spoken:
        there = ", ".join(value) or "none"
        raise Fault("missing_caption", f"no caption in {', '.join(languages)}; there is {there}.")
    return [
        own if isinstance(own, bytes) else _glossed(own, rng, train, keep, nameless)
        for own in spoken
    ]


def _glossed(
    own: Sequence[str], rng: np.random.Generator, train: bool, keep: float, nameless: float
) -> str:
    name, *words = own
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
