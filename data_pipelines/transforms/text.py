"""Text transforms: from captions to padded token ids.

Every transform is a function `f(value, *, rng, train, **options) -> value`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines import tokenizer
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault

Captions = Mapping[str, Sequence[str]] | Sequence[str] | str


def choose(
    value: Captions,
    *,
    rng: np.random.Generator,
    train: bool,
    languages: Sequence[str] = ("en",),
    share: float = 1.0,
    rule: Literal["random", "first", "longest"] = "random",
    weights: str | None = None,
) -> str:
    """One caption of many (a plain string is its own only one); for all see `views.each`.

    In evaluation the first caption of the first of `languages` that has some. In training a caption
    of that language with probability `share`, else one of another of `languages`, each as likely.
    A plain list of captions has no languages.

    Args:
        rule: which of a language's captions: in training a random one, in evaluation the first;
            always the first; or always the longest (of equals the first).
        weights: the key beside the languages under which a number for each caption says how
            probable it is to be drawn.

    Raises:
        InputError: there is no caption in any of `languages`.
        Fault: `missing_caption`: the plain list is empty; `bad_weights`: not one number of 0
            or more for each caption.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        if not value:
            raise Fault("missing_caption", "the list of captions is empty")
        return _one(value, None, rng, train, rule)
    spoken = [language for language in languages if value.get(language)]
    if not spoken:
        raise InputError(f"no caption in {', '.join(languages)}; there is {', '.join(value)}.")
    language, *others = spoken
    if train and others and rng.random() >= share:
        language = others[int(rng.integers(len(others)))]
    return _one(value[language], value.get(weights) if weights else None, rng, train, rule)


def _one(
    captions: Sequence[str],
    weights: Any,
    rng: np.random.Generator,
    train: bool,
    rule: str,
) -> str:
    if rule == "longest":
        return max(captions, key=len)
    if not train or rule == "first":
        return captions[0]
    if weights is None:
        return captions[int(rng.integers(len(captions)))]
    weight_K = np.asarray(weights, np.float64)
    if weight_K.shape != (len(captions),) or not 0 < weight_K.sum() < np.inf or min(weight_K) < 0:
        raise Fault("bad_weights", f"{len(captions)} captions have the weights {weights!r:.80}")
    return captions[int(rng.choice(len(captions), p=weight_K / weight_K.sum()))]


def template(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    templates: Sequence[str] = ("a photo of a {}.",),
) -> str:
    """A text in the place of `{}` in a template: a random one in training, the first in evaluation.

    Raises:
        InputError: there is no template, or one without a `{}`.
    """
    if not templates or any("{}" not in one for one in templates):
        raise InputError(f"text.template: templates={templates!r}; each needs a '{{}}'.")
    chosen = templates[int(rng.integers(len(templates))) if train else 0]
    return chosen.replace("{}", value)


def drop_words(value: str, *, rng: np.random.Generator, train: bool, rate: float = 0.1) -> str:
    """Leave out each word with probability `rate` in training; one word always stays."""
    words = value.split()
    if not train or len(words) < 2:
        return value
    keep = rng.random(len(words)) >= rate
    keep[rng.integers(len(words))] = True
    return " ".join(word for word, kept in zip(words, keep) if kept)


def tokenize(
    value: str,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None,
    vocab_size: int,
    length: int,
    vocabulary: str = "tokenizer.json",
) -> dict[str, Any]:
    """Token ids of `vocabulary`, a file in the source's folder, cut or padded with 0 to `length`.

    Returns:
        `value` (L,) int32 in [0, vocab_size), `mask` (L,) bool, `raw` the string.

    Raises:
        InputError: there is no vocabulary, or it has more pieces than the tower's `vocab_size`.
    """
    encoder = tokenizer.load((folder or Path()) / vocabulary)
    if encoder.get_vocab_size() > vocab_size:
        raise InputError(
            f"{vocabulary} has {encoder.get_vocab_size()} pieces: raise vocab_size={vocab_size}."
        )
    ids = encoder.encode(value).ids[:length]
    value_L = np.zeros(length, np.int32)
    value_L[: len(ids)] = ids
    return {"value": value_L, "mask": np.arange(length) < len(ids), "raw": value}
