"""Corrupted texts."""

import difflib
from collections import Counter

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mmcl.evals import corrupted
from mmcl.evals.corruptions_text import TEXTS

LONG = "A small red fox jumps over the lazy brown dog, and nobody in the whole town sees it."


def corrupt(text: str, name: str, severity: int, index: int = 0, seed: int = 0) -> str:
    found: str = corrupted.corrupt(text, index, TEXTS, name, severity, seed)
    return found


@pytest.mark.parametrize("name", TEXTS)
@hypothesis.given(st.text(min_size=1, max_size=30).filter(str.strip), st.integers(0, 99))
@hypothesis.settings(max_examples=40)
def test_a_text_stays_one(name: str, text: str, seed: int) -> None:
    for severity in range(1, 6):
        found = corrupt(text, name, severity, 3, seed)
        assert found.strip() and found == corrupt(text, name, severity, 3, seed)


@pytest.mark.parametrize("name", TEXTS)
def test_the_severer_the_farther_away(name: str) -> None:
    def away(severity: int) -> float:
        alike = [
            difflib.SequenceMatcher(None, LONG, corrupt(LONG, name, severity, i)).ratio()
            for i in range(20)
        ]
        return 1 - float(np.mean(alike))

    found = [away(severity) for severity in range(1, 6)]
    assert found[0] > 0 and (np.diff(found) > 0).all()
    assert corrupt(LONG, name, 1, 1) != corrupt(LONG, name, 1, 2) != corrupt(LONG, name, 1, 2, 1)


@pytest.mark.parametrize("severity", range(1, 6))
def test_as_much_is_changed_as_is_said(severity: int) -> None:
    letters = [i for i, one in enumerate(LONG) if one.isalnum()]
    few = round((0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1] * len(letters))
    many = round(severity / 10 * len(letters))
    assert len(corrupt(LONG, "drop_letters", severity)) == len(LONG) - few
    doubled = corrupt(LONG, "double_letters", severity)
    assert len(doubled) == len(LONG) + few and not Counter(LONG) - Counter(doubled)
    replaced = corrupt(LONG, "replace_letters", severity)
    others = [(a, b) for a, b in zip(LONG, replaced) if a != b]
    assert len(replaced) == len(LONG) and few - 3 <= len(others) <= few
    assert all(a.isalnum() and b in "abcdefghijklmnopqrstuvwxyz" for a, b in others)
    cased = corrupt(LONG, "swap_case", severity)
    assert cased.lower() == LONG.lower() and sum(a != b for a, b in zip(LONG, cased)) == many
    words = LONG.split()
    kept = corrupt(LONG, "drop_words", severity).split()
    assert len(kept) == len(words) - round(severity / 10 * len(words))
    order = iter(words)
    assert all(word in order for word in kept)  # in their order
    swapped = corrupt(LONG, "swap_words", severity)
    assert swapped != LONG and sorted(swapped.split()) == sorted(words)
    mixed = corrupt(LONG, "swap_letters", severity)
    assert mixed != LONG
    assert [sorted(word) for word in mixed.split()] == [sorted(word) for word in words]


def test_short_texts() -> None:
    assert corrupt("a", "drop_letters", 5) == corrupt("a", "drop_words", 5) == "a"
    assert corrupt("?!", "replace_letters", 5) == "?!"
    assert corrupt("ab", "swap_letters", 1) == "ba"
    assert corrupt("one two", "swap_words", 1) == "two one"
    assert corrupt("one two", "drop_words", 1) in ("one", "two")
    assert corrupt("ä", "swap_case", 1) == "Ä" and corrupt("ä", "double_letters", 1) == "ää"


@pytest.mark.parametrize("name", ["drop_words", "swap_case", "double_letters"])
def test_what_is_changed_stays_changed(name: str) -> None:
    """At higher severities."""
    mild, severe = (corrupt(LONG, name, severity, 5) for severity in (2, 4))
    if name == "swap_case":
        changed = [{i for i in range(len(LONG)) if one[i] != LONG[i]} for one in (mild, severe)]
        assert changed[0] < changed[1]
    elif name == "drop_words":
        assert not Counter(severe.split()) - Counter(mild.split())
    else:
        assert not Counter(mild) - Counter(severe)
