"""Text transforms: from captions to padded token ids.

Every transform is a function `f(value, *, rng, train, **options) -> value`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import tokenizer
from data_pipelines.errors import InputError


def choose(
    value: Mapping[str, Sequence[str]] | str,
    *,
    rng: np.random.Generator,
    train: bool,
    languages: Sequence[str] = ("en",),
    share: float = 1.0,
) -> str:
    """One caption of many (a plain string is its own only one).

    In evaluation the first caption of the first of `languages` that has some. In training a caption
    of that language with probability `share`, else one of another of `languages`, each as likely.

    Raises:
        InputError: there is no caption in any of `languages`.
    """
    if isinstance(value, str):
        return value
    spoken = [language for language in languages if value.get(language)]
    if not spoken:
        raise InputError(f"no caption in {', '.join(languages)}; there is {', '.join(value)}.")
    language, *others = spoken
    if not train:
        return value[language][0]
    if others and rng.random() >= share:
        language = others[int(rng.integers(len(others)))]
    captions = value[language]
    return captions[int(rng.integers(len(captions)))]


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
