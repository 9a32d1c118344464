"""The pictures of an Iconify collection, and which emoji each of them shows.

A collection (a package `@iconify-json/<artist>`) is icons.json, SVG bodies by name and aliases, and
chars.json, names by code points. Where an artist's chars.json is empty, emoji are found by name:
those of CLDR, and older ones that other collections give the same code points.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.sources.emoji_concepts import Concept
from data_pipelines.sources.emoji_pictures import SIZE

_VARIATION = "-FE0F"


Icon = tuple[str, bool]  # its own name, and whether it is mirrored


class Collection:
    """The icons of one artist.

    Attributes:
      icons: by name or alias.
      names: all names and aliases of an icon, its own first.
      by_code: name by code points ("1F436"), without variation selectors.
    """

    def __init__(self, folder: Path):
        self._data: dict[str, Any] = _read(folder / "icons.json")
        self._aliases: dict[str, dict] = self._data.get("aliases", {})
        self.icons: dict[str, Icon] = {}
        self.names: dict[Icon, list[str]] = {}
        for name in [*self._data["icons"], *self._aliases]:
            if icon := self._follow(name):
                self.icons[name] = icon
                self.names.setdefault(icon, []).append(name)
        self.by_code: dict[str, str] = {
            code.upper().replace(_VARIATION, ""): name
            for code, name in _read(folder / "chars.json").items()
        }

    def _follow(self, name: str) -> Icon | None:
        mirrored = False
        while name in self._aliases:
            alias = self._aliases[name]
            if not alias.keys() <= {"parent", "hFlip"}:  # turned, or cut out
                return None
            name, mirrored = alias["parent"], mirrored ^ alias.get("hFlip", False)
        return (name, mirrored) if name in self._data["icons"] else None

    def svg(self, icon: Icon) -> str:
        """The icon in the middle of a square."""
        name, mirrored = icon
        entry = self._data["icons"][name]

        def number(key: str, default: float) -> float:
            return entry.get(key, self._data.get(key, default))

        left, top = number("left", 0), number("top", 0)
        width, height = number("width", 16), number("height", 16)
        side = max(width, height)
        box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
        body = entry["body"]
        if mirrored:
            body = f'<g transform="matrix(-1 0 0 1 {2 * left + width} 0)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}">{body}</svg>'
        )


def draw(svg: str) -> bytes:
    """A square SVG as a PNG of 64 x 64 RGBA pixels, transparent around it."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, skip_system_fonts=True))


def svgs(
    collections: Mapping[str, Collection], concepts: Sequence[Concept]
) -> dict[tuple[Concept, str], str]:
    """The drawing of each concept by each artist who drew it.

    No icon serves two concepts. Where it could, or where a concept could have two, that comes first
    which is found by code points, then by the concept's name, then by what others call it; and an
    icon's own name before an alias.
    """
    others = {concept: _others_names(collections, concept) for concept in concepts}
    times = Counter(name for names in others.values() for name in names)
    found: dict[tuple[Concept, str], str] = {}
    for artist, collection in collections.items():
        claims: list[tuple[int, Concept, Icon]] = []
        for concept in concepts:
            by_code = collection.by_code.get(_bare_code(concept), "")
            clear = [name for name in others[concept] if times[name] == 1]
            for trust, names in enumerate([[by_code], _own_names(concept), clear]):
                for name in names:
                    if icon := collection.icons.get(name):
                        claims.append((2 * trust + (name != icon[0]), concept, icon))
        taken: set[Icon] = set()
        for _, concept, icon in sorted(claims, key=lambda claim: claim[0]):
            if (concept, artist) not in found and icon not in taken:
                found[concept, artist] = collection.svg(icon)
                taken.add(icon)
    return found


def _own_names(concept: Concept) -> list[str]:
    """ "flag: Côte d'Ivoire" -> "flag-cote-divoire", "flag-for-cote-divoire"."""
    name = concept.text["en"][0].casefold().replace("&", " and ").replace("'", "").replace(".", "")
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall("[a-z0-9]+", ascii_))
    if concept.group != "Flags":
        return [slug]
    return [slug, slug.replace("flag-", "flag-for-", 1), f"flag-for-{slug}"]


def _others_names(collections: Mapping[str, Collection], concept: Concept) -> set[str]:
    """What collections that know code points call it."""
    found: set[str] = set()
    for collection in collections.values():
        icon = collection.icons.get(collection.by_code.get(_bare_code(concept), ""))
        found.update(collection.names[icon] if icon else ())
    return found


def _bare_code(concept: Concept) -> str:
    return concept.code.replace(_VARIATION, "")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
