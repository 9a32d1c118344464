"""Names and keywords of emoji in a hundred languages, from Unicode CLDR's annotations."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_pipelines.sources.emoji_concepts import Concept, plain

_FILES = (
    ("cldr-annotations-full/annotations", "annotations"),
    ("cldr-annotations-derived-full/annotationsDerived", "annotationsDerived"),
)
_VARIATION = "\ufe0f"
_SHARE = 0.94  # of the concepts that English names; below it are variants such as en-AU


def captions(modules: Path, concepts: Sequence[Concept]) -> dict[Concept, dict[str, list[str]]]:
    """Of each concept, language -> its name and after it keywords, each once.

    Languages that name fewer than 94 % of what English names are left out; a language that does not
    name a concept is missing there. English comes first.

    Args:
      modules: the folder that holds the two packages of annotations.
    """
    languages = sorted(path.name for path in (modules / _FILES[0][0]).iterdir() if path.is_dir())
    languages.sort(key=lambda language: language != "en")
    text: dict[Concept, dict[str, list[str]]] = {concept: {} for concept in concepts}
    for language in languages:
        entries = _entries(modules, language)
        for concept in concepts:
            if entry := entries.get(concept.characters.replace(_VARIATION, "")):
                text[concept][language] = entry
    times = Counter(language for found in text.values() for language in found)
    kept = {language for language in languages if times[language] >= _SHARE * times["en"]}
    return {
        concept: {language: entry for language, entry in found.items() if language in kept}
        for concept, found in text.items()
    }


def _entries(modules: Path, language: str) -> dict[str, list[str]]:
    """Name and keywords by characters without variation selectors."""
    found = {}
    for folder, key in _FILES:
        path = modules / folder / language / "annotations.json"
        if not path.is_file():
            continue
        listed = json.loads(path.read_text(encoding="utf-8"))[key]
        for characters, entry in listed.get("annotations", {}).items():
            if "tts" in entry:
                words = map(plain, [*entry["tts"], *entry.get("default", [])])
                found[characters.replace(_VARIATION, "")] = _once(words)
    return found


def _once(words: Iterable[str]) -> list[str]:
    """Each word where it comes first, whatever its case."""
    once: dict[str, str] = {}
    for word in words:
        if word:
            once.setdefault(word.casefold(), word)
    return list(once.values())
