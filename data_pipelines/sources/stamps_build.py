"""From Tux Paint's folder of stamps to a folder of records: done once on a machine."""

import hashlib
import io
import json
import re
import tempfile
from collections import Counter
from importlib import util
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from data_pipelines import deb, records
from data_pipelines.errors import InputError
from data_pipelines.sources.stamps_groups import groups, thumbnail

SPLITS = ("train", "val")
PACKAGE = "tuxpaint-stamps-default"
_STAMPS = "usr/share/tuxpaint/stamps"
_MUTE = {"ca", "be"}  # clips that stop at 3.5 s, whatever they say
_SPOKEN = ("symbols/alphabets", "symbols/math")  # their sounds are names of letters and digits
_SVG_WIDTH = 512
_ATTRIBUTION = """\
# Where these pictures, captions and sounds come from

Tux Paint Stamps (https://tuxpaint.org/stamps), copyright 2002-2022 Bill Kendrick and the other
contributors, whom the file AUTHORS of the collection names. Licence: GPL, version 2 or later
(https://www.gnu.org/licenses/old-licenses/gpl-2.0.html). By way of the Debian package
tuxpaint-stamps-default. Drawings that came as SVG alone were drawn as PNG, 512 pixels wide; speech
in Catalan and Belarusian was left out; nothing else was changed.
"""


def build(folder: Path) -> dict:
    """Writes records, labels and attribution; returns counts and the package's version.

    Raises:
      InputError: a package is not installed, or apt is missing or fails.
    """
    if not util.find_spec("resvg_py"):
        raise InputError("the stamps need resvg_py: run pip install 'mmcl[quickstart]'")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="deb-", dir=folder) as temporary:
        with console.status(f"Downloading {PACKAGE} (160 MB) with apt-get"):
            root, version = deb.unpack(PACKAGE, Path(temporary))
        stamps = root / _STAMPS
        if not stamps.is_dir():
            raise InputError(f"{PACKAGE} {version} has no {_STAMPS}: it is not the package we know")
        found = sorted(path.with_suffix("") for path in stamps.rglob("*.txt"))
        read = (_record(path, stamps) for path in track(found, "stamps", console=console))
        made = [record for record in read if record is not None]
    keys = [_keys(record) for record in made]
    pictures = (Image.open(io.BytesIO(record["image"])) for record in made)
    first = groups(keys, np.stack([thumbnail(picture) for picture in pictures]))
    names = _label(made, first)
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for record in made:
        held_out = _held_out(names["group"][record["group"]])
        splits["val" if held_out else "train"].append(record)
    for split in SPLITS:
        records.write(folder / f"{split}.arrayrecord", splits[split])
    (folder / "labels.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text(_ATTRIBUTION, encoding="utf-8")
    return {
        "counts": {split: _counts(listed) for split, listed in splits.items()},
        "languages": len({language for record in made for language in record["text"]}),
        "packages": {PACKAGE: version},
    }


def _record(path: Path, stamps: Path) -> dict | None:
    """The stamp whose files all begin with `path`; None where there is no picture."""
    image = _image(path)
    name = path.relative_to(stamps).as_posix()
    if image is None:
        return None
    of_speech = re.compile(re.escape(path.name) + r"_desc(?:_([A-Za-z_@]+))?\.(?:ogg|wav)")
    files = ((of_speech.fullmatch(file.name), file) for file in sorted(path.parent.iterdir()))
    clips = {_language(match[1] or "en"): file for match, file in files if match}
    speech = {code: file.read_bytes() for code, file in clips.items() if code not in _MUTE}
    sound = path.with_name(f"{path.name}.ogg")
    heard = sound.is_file() and not name.startswith(_SPOKEN)
    return {
        "id": name,
        "image": image,
        "text": _captions(path.with_name(f"{path.name}.txt")),
        "speech": speech or None,
        "sound": sound.read_bytes() if heard else None,
    }


def _image(path: Path) -> bytes | None:
    """The PNG file, or the SVG as one."""
    png, svg = (path.with_name(path.name + suffix) for suffix in (".png", ".svg"))
    if png.is_file():
        return png.read_bytes()
    if not svg.is_file():
        return None
    import resvg_py

    drawn = resvg_py.svg_to_bytes(
        svg_string=svg.read_text(encoding="utf-8"),
        width=_SVG_WIDTH,
        dpi=96,  # or lengths in points are refused
        skip_system_fonts=True,
    )
    return bytes(drawn)


def _captions(path: Path) -> dict[str, list[str]]:
    """The first line is English, others are `de.utf8=Ein Apfel.`"""
    english, *others = path.read_text(encoding="utf-8").splitlines()
    text = {"en": [" ".join(english.split())]}
    for line in others:
        code, _, caption = line.partition(".utf8=")
        if caption := " ".join(caption.split()):
            text[_language(code)] = [caption]
    return text


def _language(code: str) -> str:
    """As elsewhere: "pt_BR" -> "pt-BR", "sr@latin" -> "sr-Latn"."""
    return code.replace("@latin", "-Latn").replace("@", "-").replace("_", "-")


def _keys(record: dict) -> list[tuple[str, ...]]:
    """The caption whatever its case, and every clip."""
    clips = [*(record["speech"] or {}).values(), record["sound"]]
    digests = [hashlib.sha256(clip).hexdigest() for clip in clips if clip is not None]
    return [("caption", _plain(record)), *(("clip", digest) for digest in digests)]


def _plain(record: dict) -> str:
    return record["text"]["en"][0].casefold()


def _label(made: list[dict], first: list[int]) -> dict[str, list[str]]:
    """Gives every record its labels; returns the names of their values."""
    values = {
        "concept": [_plain(record) for record in made],
        "category": [record["id"].split("/")[0] for record in made],
        "folder": [record["id"].rpartition("/")[0] for record in made],
        "group": [made[leader]["id"] for leader in first],
    }
    names = {label: sorted(set(of)) for label, of in values.items()}
    for label, of in values.items():
        number = {name: i for i, name in enumerate(names[label])}
        for record, value in zip(made, of, strict=True):
            record[label] = number[value]
    return names


def _held_out(group: str) -> bool:
    """True for the fifth of the groups, drawn by a hash of the name, that is for validation."""
    return hashlib.sha256(group.encode()).digest()[0] % 5 == 0


def _counts(split: list[dict]) -> dict[str, int | dict[str, int]]:
    speech = Counter(language for record in split for language in record["speech"] or {})
    return {
        "records": len(split),
        "groups": len({record["group"] for record in split}),
        "concepts": len({record["concept"] for record in split}),
        "captions": sum(len(record["text"]) for record in split),
        "clips": sum(speech.values()),
        "clips by language": dict(sorted(speech.items())),
        "sounds": sum(record["sound"] is not None for record in split),
    }
