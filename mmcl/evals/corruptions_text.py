"""Seven corruptions of texts at five severities: what slips into words that people type.

| | severity 1 to 5 |
|---|---|
| `swap_letters` | 5 to 30 % of the neighbours within a word change places |
| `drop_letters` | 5 to 30 % of the letters |
| `double_letters` | 5 to 30 % of the letters |
| `replace_letters` | 5 to 30 % of the letters, each by one of a to z |
| `drop_words` | 10 to 50 % of the words |
| `swap_words` | 10 to 50 % of the neighbouring words change places |
| `swap_case` | 10 to 50 % of the letters |

Each is a function `f(text, severity, rng)`. At least one letter, word or pair is changed where
there is one, and never all left out; what is changed at one severity is changed at all that follow.
"""

from collections.abc import Callable, Sequence

import numpy as np

LETTERS = (0.05, 0.1, 0.15, 0.2, 0.3)
WORDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def swap_letters(text: str, severity: int, rng: np.random.Generator) -> str:
    pairs = [i for i in _letters(text)[:-1] if text[i + 1].isalnum()]
    return "".join(_swapped(text, _some(pairs, LETTERS[severity - 1], rng)))


def drop_letters(text: str, severity: int, rng: np.random.Generator) -> str:
    letters = _letters(text)
    gone = {*_some(letters, LETTERS[severity - 1], rng)} if len(letters) > 1 else ()
    return "".join(letter for i, letter in enumerate(text) if i not in gone)


def double_letters(text: str, severity: int, rng: np.random.Generator) -> str:
    twice = {*_some(_letters(text), LETTERS[severity - 1], rng)}
    return "".join(letter * (1 + (i in twice)) for i, letter in enumerate(text))


def replace_letters(text: str, severity: int, rng: np.random.Generator) -> str:
    other = [chr(ord("a") + k) for k in rng.integers(26, size=len(text))]
    those = {*_some(_letters(text), LETTERS[severity - 1], rng)}
    return "".join(other[i] if i in those else letter for i, letter in enumerate(text))


def drop_words(text: str, severity: int, rng: np.random.Generator) -> str:
    words = text.split()
    gone = {*_some(range(len(words)), WORDS[severity - 1], rng)} if len(words) > 1 else ()
    return " ".join(word for i, word in enumerate(words) if i not in gone)


def swap_words(text: str, severity: int, rng: np.random.Generator) -> str:
    words = text.split()
    return " ".join(_swapped(words, _some(range(len(words) - 1), WORDS[severity - 1], rng)))


def swap_case(text: str, severity: int, rng: np.random.Generator) -> str:
    those = {*_some(_letters(text), WORDS[severity - 1], rng)}
    return "".join(one.swapcase() if i in those else one for i, one in enumerate(text))


def _letters(text: str) -> list[int]:
    """Where the letters and digits are."""
    return [i for i, one in enumerate(text) if one.isalnum()]


def _some(places: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """That share of the places, the first of a random order."""
    order = rng.permutation(len(places))
    return [places[i] for i in order[: max(1, round(share * len(places)))]]


def _swapped(those: Sequence[str], places: Sequence[int]) -> list[str]:
    """Each of the places with the one behind it."""
    found = list(those)
    for i in places:
        found[i], found[i + 1] = found[i + 1], found[i]
    return found


TEXTS: dict[str, Callable[[str, int, np.random.Generator], str]] = {
    function.__name__: function
    for function in (
        swap_letters,
        drop_letters,
        double_letters,
        replace_letters,
        drop_words,
        swap_words,
        swap_case,
    )
}
