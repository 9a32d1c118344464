import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import cache, deb
from data_pipelines.errors import InputError
from data_pipelines.sources import stamps_build
from data_pipelines.sources.stamps import NAME, Source, prepare

pytest.importorskip("resvg_py", reason="needs the extra 'quickstart'")

TEXTS = {
    "animals/birds/owl": "An owl.\nde.utf8=Eine  Eule.\npt_BR.utf8=Uma coruja.\nfr.utf8=\n",
    "animals/birds/owl2": "AN OWL.\nsr@latin.utf8=Sova.\nca@valencia.utf8=Un mussol.\n",
    "animals/cat": "A cat.\nzh_TW.utf8=貓\n",
    "food/apple[1]": "An apple.\n",
    "food/apple": "Another apple.\n",
    "symbols/math/1": "One.\n",
    "symbols/gift": "There is no picture of this.\n",
} | {f"space/star{i}": f"Star number {i}.\n" for i in range(40)}


def clip(word: str) -> bytes:
    return b"OggS" + word.encode()


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(256, size=(6, 6, 4), dtype=np.uint8)
    pixels[..., 3] |= 128
    return Image.fromarray(pixels).resize((30, 20), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a package of stamps unpacks to."""
    root = tmp_path_factory.mktemp("package")
    stamps = root / "usr/share/tuxpaint/stamps"
    for number, (name, text) in enumerate(TEXTS.items()):
        path = stamps / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.txt").write_text(text, encoding="utf-8")
        Path(f"{path}.dat").write_text("noflip\n")
        if name not in ("animals/cat", "symbols/gift"):
            picture(number).save(f"{path}.png")
    picture(0).save(f"{stamps}/animals/birds/owl_mirror.png")  # has no caption
    Path(f"{stamps}/animals/cat.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="30pt" height="15pt">'
        '<rect width="40" height="20" fill="#00f"/></svg>'
    )
    Path(f"{stamps}/animals/birds/owl.svg").write_text("<svg/>")  # a PNG comes first
    for name, word in {
        "animals/birds/owl_desc.ogg": "an owl",
        "animals/birds/owl_desc_fr.ogg": "un hibou",
        "animals/birds/owl_desc_pt_BR.wav": "uma coruja",
        "animals/birds/owl_desc_ca.ogg": "un mussol",
        "animals/birds/owl_desc_be.ogg": "sava",
        "animals/birds/owl_desc_da.ogg.ogg": "misnamed",
        "animals/birds/owl2_desc_da.ogg": "an owl's",
        "animals/birds/owl.ogg": "hoo",
        "animals/cat.ogg": "meow",
        "food/apple_desc_ru.ogg": "apple",
        "food/apple[1]_desc_es.ogg": "apple",
        "symbols/math/1.ogg": "one",
        "symbols/gift_desc_fr.ogg": "un cadeau",
    }.items():
        (stamps / name).write_bytes(clip(word))
    return root


@pytest.fixture(scope="module")
def folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deb, "unpack", lambda package, into: (tree, "1.0-1"))
        return prepare(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def records(folder: Path) -> dict[str, dict]:
    sources = [Source(split=split, cache=folder.parent) for split in Source.splits]
    return {record["id"]: record for source in sources for record in source}


def test_a_stamp_is_what_its_files_say(records) -> None:
    assert records.keys() == TEXTS.keys() - {"symbols/gift"}
    owl = records["animals/birds/owl"]
    assert owl["text"] == {"en": ["An owl."], "de": ["Eine Eule."], "pt-BR": ["Uma coruja."]}
    assert owl["speech"] == {"en": clip("an owl"), "fr": clip("un hibou"),
                             "pt-BR": clip("uma coruja")}  # fmt: skip
    assert owl["sound"] == clip("hoo")
    assert Image.open(io.BytesIO(owl["image"])).size == (30, 20)
    np.testing.assert_array_equal(Image.open(io.BytesIO(owl["image"])), picture(0))
    other = records["animals/birds/owl2"]
    assert other["text"].keys() == {"en", "sr-Latn", "ca-valencia"}
    assert records["space/star0"]["speech"] is None
    assert records["space/star0"]["sound"] is None
    assert records["symbols/math/1"]["sound"] is None  # somebody says the number


def test_an_svg_alone_is_drawn(records) -> None:
    drawn = Image.open(io.BytesIO(records["animals/cat"]["image"]))
    assert (drawn.format, drawn.size) == ("PNG", (512, 256))
    assert drawn.convert("RGBA").getpixel((100, 100)) == (0, 0, 255, 255)


def test_labels(folder: Path, records) -> None:
    names = Source(split="train", cache=folder.parent).label_names
    owl, owl2 = (records[f"animals/birds/{name}"] for name in ("owl", "owl2"))
    assert names["category"][owl["category"]] == "animals"
    assert names["folder"][owl["folder"]] == "animals/birds"
    assert names["concept"][owl["concept"]] == names["concept"][owl2["concept"]] == "an owl."
    assert len(names["concept"]) == len(records) - 1


def test_duplicates_are_one_group_and_no_group_crosses(folder: Path, records) -> None:
    group = {name: record["group"] for name, record in records.items()}
    assert group["animals/birds/owl"] == group["animals/birds/owl2"]  # a caption
    assert group["food/apple"] == group["food/apple[1]"]  # a clip, whatever the language
    assert len(set(group.values())) == len(records) - 2
    split = {
        split: {record["group"] for record in Source(split=split, cache=folder.parent)}
        for split in Source.splits
    }
    assert not split["train"] & split["val"]
    assert 3 <= len(split["val"]) <= 15
    for name, number in group.items():
        leader = min(other for other in group if group[other] == number)
        held_out = hashlib.sha256(leader.encode()).digest()[0] % 5 == 0
        assert (number in split["val"]) == held_out, name


def test_the_manifest_counts(folder: Path, records) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    counts = manifest["counts"].values()
    assert sum(of["records"] for of in counts) == len(records)
    assert sum(of["captions"] for of in counts) == sum(len(r["text"]) for r in records.values())
    assert sum(of["clips"] for of in counts) == 6
    assert sum(of["sounds"] for of in counts) == 2
    assert manifest["languages"] == 6
    assert manifest["packages"] == {"tuxpaint-stamps-default": "1.0-1"}
    assert "GPL" in (folder / "ATTRIBUTION.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["train.arrayrecord", "val.arrayrecord", "labels.json", "ATTRIBUTION.md", "manifest.json"]
    )


def test_limit_and_pickle(folder: Path) -> None:
    source = Source(split="train", cache=folder.parent, limit=3)
    assert len(source) == 3
    with pytest.raises(IndexError):
        source[3]
    assert pickle.loads(pickle.dumps(source))[2] == source[2]
    assert len(Source(split="val", cache=folder.parent, limit=10**6)) < 20


@pytest.mark.parametrize(
    ("options", "match"),
    [({"split": "test"}, "no split 'test'.*train, val"), ({"split": "val", "limit": 0}, "limit=0")],
)
def test_what_is_refused(folder: Path, options, match) -> None:
    with pytest.raises(InputError, match=match):
        Source(cache=folder.parent, **options)


def test_a_source_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "unpack", lambda *_: pytest.fail("downloads"))
    with pytest.raises(InputError, match="run mmcl data get stamps"):
        Source(split="train", cache=tmp_path)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "unpack", lambda package, into: (into, "2.0"))
    with pytest.raises(InputError, match="2.0 has no usr/share/tuxpaint/stamps"):
        prepare(tmp_path)
    monkeypatch.setattr(stamps_build.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"resvg_py: run pip install 'mmcl\[quickstart\]'"):
        prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_the_real_package(tmp_path: Path) -> None:
    try:
        folder = prepare(tmp_path)
    except InputError as error:
        pytest.skip(f"the package is not there: {error}")
    assert folder == tmp_path / NAME
    manifest = cache.verify(folder)
    totals = {
        key: sum(of[key] for of in manifest["counts"].values())
        for key in ("records", "captions", "clips", "sounds", "groups")
    }
    if manifest["packages"]["tuxpaint-stamps-default"] == "2022.06.04-1":
        assert totals == {"records": 950, "captions": 62340, "clips": 5783, "sounds": 110,
                          "groups": 752}  # fmt: skip
        assert manifest["languages"] == 78
    spoken = {
        language for of in manifest["counts"].values() for language in of["clips by language"]
    }
    assert {"fr", "ru", "es"} <= spoken and not spoken & {"ca", "be"}
    for record in Source(split="val", cache=tmp_path):
        for sound in [*(record["speech"] or {}).values(), record["sound"] or b"OggS"]:
            assert sound[:4] in (b"OggS", b"RIFF")
        Image.open(io.BytesIO(record["image"])).load()
