"""Standard suites: each in small, in exactly its published layout, judged with a model of pixels.

The model of most tests is a run whose towers are made anew from a few pixels and letters; what is
asked is which records, captions and classes are judged, which does not depend on what it learnt.
"""

import contextlib
import io
import json
import pprint
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result
from PIL import Image

from data_pipelines.errors import InputError
from mmcl import experiment, suites
from mmcl.built_stage import build
from mmcl.cli import cli
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh
from mmcl.model import Model

pytestmark = pytest.mark.usefixtures("own_cache")
SUITES = Path(__file__).resolve().parent.parent.parent / "experiments/suites"
WNIDS = [line.split()[0] for line in (SUITES / "imagenet_classes.txt").read_text().splitlines()]
CONFIG = {
    "steps": 4,
    "batch_size": 8,
    "embed_dim": 4,
    "source": {"name": "own_things", "split": "train"},
    "transforms": {
        "image": [{"name": "image.resize", "size": 4}],
        "text": [{"name": "tokens.utf8", "vocab_size": 300, "length": 40}],
    },
    "towers": {
        "image": {"name": "vit", "patch": 2, "width": 8, "depth": 1, "heads": 2},
        "text": {"name": "text", "vocab_size": 300, "width": 8, "depth": 1, "heads": 2},
    },
    "objective": {"name": "supcon", "positives": "kind"},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "constant", "peak": 1e-3},
    "eval": {"splits": ["val"], "every": 2, "batch_size": 8},
    "checkpoint": {"every": 2},
    "log_every": 1,
}
PARTS = """
import numpy as np


class Source:
    splits = ("train", "val")
    label_names = {"kind": ["a", "b", "c"]}

    def __init__(self, *, split):
        self.split = split

    def __len__(self):
        return 12

    def __getitem__(self, i):
        image = np.full((4, 4, 3), 20 * i, np.uint8)
        return {"id": f"{self.split}/{i}", "image": image, "text": f"thing {i}", "kind": i % 3}
"""
MINE = """
from ml_collections import ConfigDict

def get_config(path=None):
    config = ConfigDict()
    config.source = dict(name="image_folder", folder=path)
    config.splits = ["val"]
    config.evaluators = [dict(name="zeroshot", label="class")]
    return config
"""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))


@contextlib.contextmanager
def new_imports() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    with new_imports():
        yield


@pytest.fixture(scope="module", autouse=True)
def on_one_device() -> Iterator[None]:
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with an experiment, and a run of it."""
    home = tmp_path_factory.mktemp("home")
    (home / "own_things.py").write_text(PARTS)
    (home / "things.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config(arg=None):\n    return ConfigDict({pprint.pformat(CONFIG)})\n"
    )
    with new_imports():
        result = mmcl_(["train", str(home / "things.py"), "--workdir", str(home / "runs/things")])
    assert result.exit_code == 0, result.output
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> Iterator[Model]:
    with new_imports():
        sys.path.insert(0, str(home))
        stage = build(experiment.stages(CONFIG)[0], data_mesh(jax.devices()[:1]))
        with jax.set_mesh(stage.mesh):
            yield stage.model(stage.init())


def mmcl_(words: list[str]) -> Result:
    return CliRunner().invoke(cli, words, prog_name="mmcl")


def refused(words: list[str]) -> str:
    result = mmcl_(words)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return str(line.removeprefix("mmcl: "))


def picture(number: int) -> bytes:
    """A JPEG of one colour."""
    buffer = io.BytesIO()
    colour = (37 * number % 256, 91 * number % 256, 53 * number % 256)
    Image.new("RGB", (8, 6), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def put(folder: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))
    return folder


def judged(model: Model, named: str) -> dict[str, float]:
    """All figures of a suite."""
    (opened,) = suites.open_all([named])
    of = suites.of(opened, model)
    found: dict[str, float] = {}
    for split in opened.suite.splits:
        embedded = of.embed(split)
        assert embedded.split == split
        found |= numbers(of.judge(embedded))
    return found


# Every suite that mmcl brings along, on its layout in small


def test_imagenet(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation set and no other; 80 prompts for each of 1,000 classes."""
    put(tmp_path / "train", f"{WNIDS[5]}/x.JPEG")
    put(
        tmp_path / "val",
        *(f"{WNIDS[c]}/ILSVRC2012_val_{k:08d}.JPEG" for c in (0, 999) for k in (1, 2)),
    )
    asked: list[str] = []

    def encode(self: Model, modality: str, prompts: Any) -> np.ndarray:
        """The right class of each picture is the nearest: those of WNIDS[0] and [999]."""
        assert modality == "text"
        asked.extend(prompts)
        return np.eye(4, dtype=np.float32)[np.zeros(len(prompts), int)]

    monkeypatch.setattr(Model, "encode", encode)
    found = judged(model, f"imagenet:{tmp_path}")
    assert len(asked) == 80_000 and asked[0] == "a bad photo of a tench."
    assert asked[-1] == "a tattoo of the toilet paper."
    name = "eval/imagenet-val/zeroshot_class"
    assert found[f"{name}/count"] == 4 and found[f"{name}/chance"] == 1 / 1000
    assert all(key.startswith(f"{name}/") for key in found)


@pytest.mark.parametrize(
    "suite, paths, classes, labels",
    [
        ("imagenet_v2", ["10/a.jpeg", "2/b.jpeg", "999/c.jpeg"], 1000, [10, 2, 999]),
        ("imagenet_a", [f"{WNIDS[6]}/0.01_a.jpg", f"{WNIDS[13]}/b.jpg"], 2, [0, 1]),
        ("imagenet_r", [f"{WNIDS[1]}/art_0.jpg", f"{WNIDS[2]}/toy_1.jpg"], 2, [0, 1]),
        ("imagenet_sketch", [f"{WNIDS[0]}/s_1.JPEG", f"{WNIDS[9]}/s_2.JPEG"], 1000, [0, 9]),
    ],
)
def test_imagenets_kin(
    tmp_path: Path, model: Model, suite: str, paths: list[str], classes: int, labels: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each picture has its class by the list of ImageNet, and is named among those it should be."""
    put(tmp_path, *paths)
    (tmp_path / "README.txt").touch()
    (opened,) = suites.open_all([f"{suite}:{tmp_path}"])
    of = suites.of(opened, model)
    embedded = of.embed("test")
    names = embedded.label_names["class"]
    assert len(names) == classes
    assert dict(zip(embedded.ids, embedded.labels["class"].tolist())) == dict(zip(paths, labels))
    number = int(paths[0].split("/")[0]) if suite == "imagenet_v2" else WNIDS.index(paths[0][:9])
    line = (SUITES / "imagenet_classes.txt").read_text().splitlines()[number]
    assert names[labels[0]] == line.partition(" ")[2]
    monkeypatch.setattr(
        Model,
        "encode",
        lambda self, modality, prompts: np.tile(np.float32([1, 0, 0, 0]), (len(prompts), 1)),
    )
    found = numbers(of.judge(embedded))
    assert found[f"eval/{suite}-test/zeroshot_class/chance"] == 1 / classes
    assert found[f"eval/{suite}-test/zeroshot_class/count"] == len(paths)


def test_names_and_templates_are_the_published_ones() -> None:
    lines = (SUITES / "imagenet_classes.txt").read_text().splitlines()
    assert len(lines) == len(set(WNIDS)) == 1000 and sorted(WNIDS) == WNIDS
    known = {"n01440764": "tench", "n02012849": "crane bird", "n03126707": "construction crane",
             "n15075141": "toilet paper"}  # fmt: skip
    found = dict(line.split(" ", 1) for line in lines)
    assert found | known == found
    templates = (SUITES / "imagenet_templates.txt").read_text().splitlines()
    assert len(set(templates)) == 80 and all(line.count("{}") == 1 for line in templates)
    assert "itap of a {}." in templates


def karpathy(folder: Path, name: str, place: str, filepath: str | None) -> list[str]:
    """A JSON with three pictures of `test` among others; the captions of these."""
    images, captions = [], []
    for i, split in enumerate(["test", "restval", "test", "val", "train", "test"]):
        put(folder / place, f"{i:012d}.jpg")
        sentences = [{"raw": f"caption {k} of {i}"} for k in range(5 + (i == 2))]
        image = {"filename": f"{i:012d}.jpg", "split": split, "sentences": sentences}
        images.append(image | ({} if filepath is None else {"filepath": filepath, "cocoid": i}))
        if split == "test":
            captions += [sentence["raw"] for sentence in sentences[:5]]
    (folder / name).write_text(json.dumps({"images": images}))
    return captions


@pytest.mark.parametrize(
    "suite, name, place, filepath",
    [
        ("coco", "dataset_coco.json", "val2014", "val2014"),
        ("flickr30k", "dataset_flickr30k.json", "flickr30k-images", None),
    ],
)
def test_five_captions_a_picture(
    tmp_path: Path, model: Model, suite: str, name: str, place: str, filepath: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    captions = karpathy(tmp_path, name, place, filepath)
    encoded: list[str] = []
    encode = Model.encode

    def seen(self: Model, modality: str, values: Any) -> np.ndarray:
        encoded.extend(values)
        return encode(self, modality, values)

    monkeypatch.setattr(Model, "encode", seen)
    found = judged(model, f"{suite}:{tmp_path}")
    assert encoded == captions and len(captions) == 15
    there, back = (f"eval/{suite}-test/{way}" for way in ("image_to_captions", "captions_to_image"))
    assert (found[f"{there}/queries"], found[f"{there}/gallery"]) == (3, 15)
    assert (found[f"{back}/queries"], found[f"{back}/gallery"]) == (15, 3)
    assert found[f"{back}/recall@5"] == 1 and found[f"{there}/shared"] == 0


def test_winoground(tmp_path: Path, model: Model) -> None:
    put(tmp_path / "images", *(f"ex_{i}_img_{k}.png" for i in range(3) for k in (0, 1)))
    lines = [
        {"id": i, "image_0": f"ex_{i}_img_0", "image_1": f"ex_{i}_img_1",
         "caption_0": f"a {i} b", "caption_1": f"b {i} a"}
        for i in range(3)
    ]  # fmt: skip
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = judged(model, f"winoground:{tmp_path}")
    assert found["eval/winoground-test/composition_pair/count"] == 3
    assert found["eval/winoground-test/composition_pair/group_chance"] == 1 / 6


def test_aro(tmp_path: Path, model: Model) -> None:
    """Both sets, or the one that is there; a record is a part of a picture and two captions."""
    put(tmp_path / "images", "1.jpg", "2.jpg")
    cases = [
        {"image_path": f"{1 + i % 2}.jpg", "true_caption": f"a {i} b", "false_caption": f"b {i} a",
         "bbox_x": i, "bbox_y": 1, "bbox_w": 4, "bbox_h": 3}
        for i in range(4)
    ]  # fmt: skip
    relations = [case | {"relation_name": name} for case, name in zip(cases, "xxxy")]
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps(relations))
    found = judged(model, f"aro:{tmp_path}")
    name = "eval/aro-relation/caption_choice"
    assert found.keys() == {f"{name}/{one}" for one in
                            ("accuracy", "mean_per_relation", "chance", "count")}  # fmt: skip
    (opened,) = suites.open_all([f"aro:{tmp_path}"])
    embedded = suites.of(opened, model).embed("relation")
    hits = []
    for i, case in enumerate(cases):
        pixels = np.asarray(Image.open(tmp_path / "images" / case["image_path"]))
        z_D = model.encode("image", [pixels[1:4, i : i + 4]])[0]
        right, wrong = model.encode("text", [case["true_caption"], case["false_caption"]]) @ z_D
        hits.append(right > wrong)
        np.testing.assert_allclose(embedded.z["image"][i], z_D, atol=0.02)
    assert found[f"{name}/accuracy"] == np.mean(hits) and found[f"{name}/count"] == 4
    expected = (np.mean(hits[:3]) + hits[3]) / 2
    assert found[f"{name}/mean_per_relation"] == pytest.approx(expected)
    attributes = [case | {"attributes": ["red", "old"]} for case in cases]
    (tmp_path / "visual_genome_attribution.json").write_text(json.dumps(attributes))
    both = judged(model, f"aro:{tmp_path}")
    assert both["eval/aro-attribution/caption_choice/count"] == 4 and found.items() <= both.items()


def wds(folder: Path, field: str, values: list[Any]) -> Path:
    (folder / "test").mkdir(parents=True)
    (folder / "test/nshards.txt").write_text("1")
    with webdataset.TarWriter(str(folder / "test/0.tar")) as writer:
        for i, value in enumerate(values):
            writer.write({"__key__": f"s{i:07d}", "jpg": picture(i), field: value})
    return folder


def test_clip_benchmark(tmp_path: Path, model: Model) -> None:
    pets = wds(tmp_path / "wds_pets", "cls", [0, 2, 1, 1])
    (pets / "classnames.txt").write_text("cat\ndog\nold bird\n")
    (pets / "zeroshot_classification_templates.txt").write_text("a {c}.\nmany {c}\n")
    birds = wds(tmp_path / "birds", "txt", [b"one\ntwo\n", b"three"])
    (birds / "dataset_type.txt").write_text("retrieval")
    opened = suites.open_all([f"clip_benchmark:{pets}", f"clip_benchmark:{birds}/"])
    assert opened[0].suite.evaluators[0]["templates"] == ["a {}.", "many {}"]
    found = judged(model, f"clip_benchmark:{pets}") | judged(model, f"clip_benchmark:{birds}")
    assert found["eval/clip_benchmark-pets-test/zeroshot_class/count"] == 4
    assert found["eval/clip_benchmark-pets-test/zeroshot_class/chance"] == 1 / 3
    assert found["eval/clip_benchmark-birds-test/image_to_captions/gallery"] == 3


def test_every_suite_says_its_layout_and_protocol() -> None:
    assert len(suites.brought_along()) == 10
    for file in suites.brought_along():
        text = file.read_text()
        for head in ("Layout:", "Protocol:", "Command:"):
            assert re.search(f"^{head} ", text, re.MULTILINE), (file.name, head)
        assert f"mmcl eval RUN --suite {file.stem}:PATH" in text


# What a run's model makes of a suite


def test_the_models_own_transforms_read_the_records(tmp_path: Path, model: Model) -> None:
    """Pictures become as the model had them, labels are the suite's, and prompts are still read."""
    put(tmp_path / "val", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg")
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    (opened,) = suites.open_all([f"{mine}:{tmp_path}"])
    of = suites.of(opened, model)
    embedded = of.embed("val")
    assert embedded.z.keys() == {"image"}  # the text tower has nothing to read
    assert embedded.labels["class"].tolist() == [0, 1, 1] and "kind" not in embedded.labels
    assert embedded.label_names == {"class": ["cat", "dog"]}
    bytes_ = [(tmp_path / "val" / id).read_bytes() for id in embedded.ids]
    np.testing.assert_array_equal(embedded.z["image"], model.encode("image", bytes_))
    np.testing.assert_array_equal(of.encode("text", ["a"]), model.encode("text", ["a"]))
    assert of.settings.faults == model.settings.faults and of.kept is not model.kept
    assert model.suite is None and model.embed("val").z.keys() == {"image", "text"}


def test_records_that_could_not_be_used_are_counted(tmp_path: Path, model: Model) -> None:
    put(tmp_path / "val", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg")
    (tmp_path / "val/dog/2.jpg").write_bytes(b"no picture")
    (tmp_path / "mine.py").write_text(MINE)
    (opened,) = suites.open_all([f"{tmp_path}/mine.py:{tmp_path}"])
    of = suites.of(opened, model)
    embedded = of.embed("val")
    told = of.told(embedded)
    assert told.startswith("'mine-val' is judged without 1 of its records") and "dog/2.jpg" in told
    found = numbers(of.judge(embedded))
    assert found["eval/mine-val/rejected/unreadable_image"] == 1
    assert found["eval/mine-val/zeroshot_class/count"] == 2


def test_a_run_of_other_modalities(tmp_path: Path, model: Model) -> None:
    put(tmp_path / "val", "cat/1.jpg")
    (tmp_path / "mine.py").write_text(MINE)
    (opened,) = suites.open_all([f"{tmp_path}/mine.py:{tmp_path}"])
    read = model.pipeline.transforms
    other = {"picture": read["image"], "text": read["text"]}
    with pytest.raises(
        InputError, match=r"'mine' have \['id', 'image', 'class'\], and the model re"
    ):
        suites.modalities(opened, type(model.pipeline)(other, model.pipeline.source))


# Mistakes


@pytest.mark.parametrize(
    "named, message",
    [
        ("imagnet:/", "There is no suite 'imagnet'. Did you mean 'imagenet'?"),
        ("no/where.py:/", "There is no suite 'no/where.py'. There is: aro, clip_benchmark, coco, "),
        ("coco", "The suite 'coco' needs the path of its data: coco:PATH."),
        ("coco:/none/such", "There is no /none/such, where the suite 'coco' looks for its data."),
        ("coco:{at}", "Suite 'coco', split 'test': {at}/dataset_coco.json is missing"),
        ("experiments/suites/coco.py:{at}", "Suite 'coco', split 'test': {at}/dataset_coco.json"),
        ("imagenet:{at}", "Suite 'imagenet', split 'val': {at}/val is missing"),
        ("imagenet_r:{at}", "Suite 'imagenet_r', split 'test': 1 of 1 folders in {at} are of no c"),
        ("winoground:{at}", "Suite 'winoground', split 'test': {at}/examples.jsonl is missing"),
        ("aro:{at}", "Suite 'aro', split 'relation': {at}/visual_genome_relation.json is missing"),
        ("aro:/none/such", "There is no /none/such, where the suite 'aro' looks for its data."),
        ("clip_benchmark:{at}", "get_config of {suites}/clip_benchmark.py fails: {suites}/clip_b"),
    ],
)
def test_a_wrong_name_or_path_is_one_line(tmp_path: Path, named: str, message: str) -> None:
    put(tmp_path, "birds/1.jpg")
    places = {"at": tmp_path, "suites": SUITES}
    with pytest.raises(InputError) as caught:
        suites.open_all([named.format(**places)])
    assert str(caught.value).startswith(message.format(**places))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("config.splits", "config.split", "mine.py: config.split: unknown key. Did you mean 'spl"),
        ('config.splits = ["val"]', "", "mine.py: config.splits: missing; it has no default."),
        ('["val"]', '"val"', "mine.py: config.splits: 'val' should be a list of strings."),
        ('["val"]', "[]", "mine.py: config.splits: there is none."),
        ("folder=path", "fodler=path", "mine.py: config.source.fodler: unknown key. Did you mean"),
        ("image_folder", "image_foldr", "mine.py: config.source.name: there is no 'image_foldr'. "),
        (
            "label=",
            "lable=",
            "mine.py: config.evaluators.0.lable: unknown key. Did you mean 'label",
        ),
        ("return config", "return 3", "get_config of {at}/mine.py returns 3; it must return a ml_"),
        ("return config", "1 / 0", "get_config of {at}/mine.py fails: {at}/mine.py, line 9: Zero"),
        ("def get_config", "def config", "{at}/mine.py has no function get_config(path); every"),
        ("import ConfigDict", "import Config", "The suite fails: {at}/mine.py, line 2: ImportEr"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    (tmp_path / "mine.py").write_text(MINE.replace(old, new))
    with pytest.raises(InputError) as caught:
        suites.load(f"{tmp_path}/mine.py:{tmp_path}")
    assert str(caught.value).startswith(message.format(at=tmp_path))
    assert "\n" not in str(caught.value)


def test_two_suites_of_one_name(tmp_path: Path) -> None:
    put(tmp_path / "val", "cat/1.jpg")
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(InputError, match="Two suites would give figures called eval/mine-val"):
        suites.open_all([f"{tmp_path}/mine.py:{tmp_path}"] * 2)


def test_a_source_and_an_evaluator_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "own_eval.py").write_text(
        "def evaluate(embedded, model):\n    return {'x/y': 1.0}\n"
    )
    (tmp_path / "mine.py").write_text(
        MINE.replace('dict(name="zeroshot", label="class")', 'dict(name="own_eval")')
    )
    put(tmp_path / "val", "cat/1.jpg")
    assert suites.open_all([f"{tmp_path}/mine.py:{tmp_path}"])[0].suite.name == "mine"


# The command line


def test_eval_of_suites(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the suites, unless a split is asked for too."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "val", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "mine.py").write_text(MINE)
    karpathy(tmp_path, "dataset_coco.json", "val2014", "val2014")
    run = str(home / "runs/things")
    words = ["eval", run, "--suite", f"mine.py:{tmp_path}", "--suite", f"coco:{tmp_path}"]
    result = mmcl_([*words, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {key.split("/")[1] for key in told if key.startswith("eval/")} == {
        "mine-val", "coco-test",
    }  # fmt: skip
    assert told["eval/coco-test/captions_to_image/queries"] == 15
    assert "eval/coco-test/captions_to_image/recall@1" in told["intervals"]
    result = mmcl_([*words, "--split", "val"])
    heads = [line.split()[0] for line in result.stdout.splitlines() if line[:1] not in (" ", "")]
    assert {"val", "mine-val", "coco-test"} <= set(heads), result.output


def test_a_missing_path_is_told_before_the_run_is_loaded(home: Path) -> None:
    words = ["eval", str(home / "runs/none"), "--suite", "coco:/none/such"]
    assert refused(words) == "There is no /none/such, where the suite 'coco' looks for its data."


def test_transforms_that_take_no_files(home: Path, tmp_path: Path, model: Model) -> None:
    put(tmp_path / "val", "cat/1.jpg")
    (tmp_path / "mine.py").write_text(MINE)
    (opened,) = suites.open_all([f"{tmp_path}/mine.py:{tmp_path}"])

    def pixels(value: Any, *, rng: Any, train: bool) -> Any:
        return {"value": value.astype(np.float32)}

    read = {**model.pipeline.transforms, "image": (pixels,)}
    with pytest.raises(InputError, match=r"config.transforms.image cannot take what the suite 'mi"):
        suites.pipeline(opened, type(model.pipeline)(read, model.pipeline.source))


def first_letters(value: Any, *, rng: Any, train: bool) -> Any:
    """What reads all captions of a record, as views.each does."""
    return {"value": np.array([ord(one[0]) for one in value], np.int32)}


def test_of_several_captions_transforms_for_one_get_the_first(tmp_path: Path, model: Model) -> None:
    karpathy(tmp_path, "dataset_coco.json", "val2014", "val2014")
    (opened,) = suites.open_all([f"coco:{tmp_path}"])
    own = model.pipeline.transforms["text"]
    made = suites.pipeline(opened, model.pipeline)
    assert list(made.transforms["text"][1:]) == list(own)
    example = made(opened.record, 0, seed=(0,), train=False)
    assert example["text"]["raw"] == "caption 0 of 0"
    read = {**model.pipeline.transforms, "text": (first_letters,)}
    all_of_them = suites.pipeline(opened, type(model.pipeline)(read, model.pipeline.source))
    assert all_of_them.transforms["text"] == (first_letters,)


# In training


def with_suites(home: Path, tmp_path: Path, *listed: str) -> Path:
    for file in home.glob("*.py"):
        shutil.copy(file, tmp_path)
    file = tmp_path / "things.py"
    config = {**CONFIG, "eval": {**CONFIG["eval"], "suites": list(listed)}}  # type: ignore[dict-item]
    file.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config(arg=None):\n    return ConfigDict({pprint.pformat(config)})\n"
    )
    return file


def test_suites_in_training(home: Path, tmp_path: Path) -> None:
    """Evaluated wherever splits are; in metrics.jsonl, in evals.json, and in no gallery."""
    put(tmp_path / "data/val", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg")
    (tmp_path / "data/val/dog/3.jpg").write_bytes(b"no picture")
    (tmp_path / "mine.py").write_text(MINE)
    file = with_suites(home, tmp_path, f"{tmp_path}/mine.py:{tmp_path}/data")
    run = tmp_path / "run"
    best = "--config.checkpoint.best=eval/mine-val/zeroshot_class/top1"
    result = mmcl_(["train", str(file), "--workdir", str(run), best])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    name = "eval/mine-val/zeroshot_class"
    assert [row["step"] for row in rows if f"{name}/top1" in row] == [2, 4]
    assert rows[-1][f"{name}/count"] == 2 and "eval/val/image_to_text/recall@1" in rows[-1]
    assert f"{name}/top1" in json.loads((run / "evals.json").read_text())["intervals"]
    (reject,) = [json.loads(line) for line in (run / "rejected.jsonl").read_text().splitlines()]
    assert (reject["split"], reject["id"]) == ("mine-val", "dog/3.jpg")
    assert (
        name in (run / "report.html").read_text() or "mine-val" in (run / "report.html").read_text()
    )
    told = json.loads(mmcl_(["eval", str(run), "--json"]).stdout)
    assert told[f"{name}/top1"] == pytest.approx(rows[-1][f"{name}/top1"])
    assert "eval/val/image_to_text/recall@1" in told


def test_a_missing_path_is_told_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    file = with_suites(home, tmp_path, "imagenet:/none/such")
    line = refused(["train", str(file), "--workdir", str(tmp_path / "run")])
    assert line == "There is no /none/such, where the suite 'imagenet' looks for its data."
    assert not (tmp_path / "run").exists()
    file = with_suites(home, tmp_path, f"imagenet:{tmp_path}")
    line = refused(["train", str(file), "--workdir", str(tmp_path / "run")])
    assert line == f"Suite 'imagenet', split 'val': {tmp_path}/val is missing"
    assert not (tmp_path / "run").exists()


def test_best_by_a_metric_of_no_suite(tmp_path: Path) -> None:
    config: Any = {**CONFIG, "checkpoint": {"best": "eval/coco-test/x"}}
    config["eval"] = {"splits": ["val"], "suites": ["imagenet:/x"]}
    with pytest.raises(InputError, match="a metric of one of eval/val/, eval/imagenet- "):
        experiment._check_best(
            experiment.Settings(
                1, 1, 1, {}, {}, {}, {}, {}, {},
                eval=experiment.Evaluation(**config["eval"]),
                checkpoint=experiment.Saving(**config["checkpoint"]),
            )
        )  # fmt: skip
