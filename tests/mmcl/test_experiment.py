"""Wrong configs are refused in one line before any data is opened; right ones are built."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build

CHANGED = [  # dotted key (to set, or to delete with ...), value, message
    # unknown keys at every level
    ("stepz", 1, "config.stepz: unknown key. Did you mean 'steps'?"),
    ("stage", [], "config.stage: unknown key. Did you mean 'stages'?"),
    ("eval.evry", 1, "config.eval.evry: unknown key. Did you mean 'every'?"),
    ("checkpoint.kep", 1, "config.checkpoint.kep: unknown key. Did you mean 'keep'?"),
    ("source.limt", 1, "config.source.limt: unknown key. Did you mean 'limit'?"),
    ("towers.image.witdh", 1, "config.towers.image.witdh: unknown key. Did you mean 'width'?"),
    ("towers.text.embed_dim", 1, "config.towers.text.embed_dim: unknown key."),
    ("objective.positive", 1, "config.objective.positive: unknown key. Did you mean 'positives'?"),
    ("optimizer.weight_dcay", 1,
     "config.optimizer.weight_dcay: unknown key. Did you mean 'weight_decay'?"),
    ("optimizer.nesterov", 1, "config.optimizer.nesterov: unknown key."),
    ("optimizer.decayed", 1, "config.optimizer.decayed: unknown key."),
    ("schedule.peek", 1, "config.schedule.peek: unknown key. Did you mean 'peak'?"),
    ("transforms.image.2.brightnes", 1,
     "config.transforms.image.2.brightnes: unknown key. Did you mean 'brightness'?"),
    ("transforms.text.1.train", 1, "config.transforms.text.1.train: unknown key."),
    ("eval.evaluators", [{"name": "retrieval"}, {"name": "zeroshot", "lable": "x"}],
     "config.eval.evaluators.1.lable: unknown key. Did you mean 'label'?"),
    # missing keys
    ("steps", ..., "config.steps: missing; it has no default."),
    ("objective", ..., "config.objective: missing; it has no default."),
    ("schedule.peak", ..., "config.schedule.peak: missing; it has no default."),
    ("towers.text.vocab_size", ..., "config.towers.text.vocab_size: missing; it has no default."),
    ("transforms.image.4.size", ..., "config.transforms.image.4.size: missing;"),
    # sections without a name, or that are none
    *[
        (f"{at}.name", ..., f"config.{at}: {{")
        for at in ("source", "towers.image", "objective", "optimizer", "schedule",
                   "transforms.text.0")
    ],
    ("eval.evaluators", [{}], "config.eval.evaluators.0: {} should be a section with a 'name'."),
    ("objective.name", 3, "config.objective: {"),
    ("objective", "infonce", "config.objective: 'infonce' should be a section, as dict(...)."),
    ("optimizer", None, "config.optimizer: None should be a section, as dict(...)."),
    ("towers", [], "config.towers: [] should be a section, as dict(...)."),
    ("towers.image", "vit", "config.towers.image: 'vit' should be a section, as dict(...)."),
    ("transforms.image", {"name": "x"},
     "config.transforms.image: {'name': 'x'} should be a list of sections."),
    ("transforms.image.0", "image.resize",
     "config.transforms.image.0: 'image.resize' should be a section, as dict(...)."),
    ("eval", 3, "config.eval: 3 should be a section, as dict(...)."),
    ("checkpoint", [], "config.checkpoint: [] should be a section, as dict(...)."),
    # unknown names
    ("source.name", "emojy", "config.source.name: there is no 'emojy'. Did you mean 'emoji'?"),
    ("source.name", "emoji_build", "config.source.name: there is no 'emoji_build'."),
    ("towers.image.name", "vot",
     "config.towers.image.name: there is no 'vot'. Did you mean 'vit'?"),
    ("objective.name", "infonc",
     "config.objective.name: there is no 'infonc'. Did you mean 'infonce'?"),
    ("optimizer.name", "adam",
     "config.optimizer.name: there is no 'adam'. Did you mean 'adamw'?"),
    ("optimizer.name", "make", "config.optimizer.name: 'make' is not a function (decayed, *, ...)"),
    ("schedule.name", "warmup_cos",
     "config.schedule.name: there is no 'warmup_cos'. Did you mean 'warmup_cosine'?"),
    ("transforms.text.1.name", "text.drop_word",
     "config.transforms.text.1.name: there is no 'text.drop_word'. "
     "Did you mean 'text.drop_words'?"),
    ("transforms.text.1.name", "text", "config.transforms.text.1.name: there is no 'text'."),
    ("eval.evaluators", [{"name": "retreival"}],
     "config.eval.evaluators.0.name: there is no 'retreival'. Did you mean 'retrieval'?"),
    ("source.split", "trian", "config.source.split: There is no split 'trian'. "
     "Did you mean 'train'?"),
    ("eval.splits", ["train", "unseen"], "config.eval.splits.1: There is no split 'unseen'. "),
    ("precision", "float31", "config.precision: no 'float31'. Did you mean 'float32'?"),
    # wrong types and ranges
    ("steps", 1.5, "config.steps: 1.5 should be a whole number."),
    ("steps", True, "config.steps: True should be a whole number."),
    ("batch_size", 0, "config.batch_size: 0 should be 1 or more."),
    ("log_every", 0, "config.log_every: 0 should be 1 or more."),
    ("eval.every", 0, "config.eval.every: 0 should be 1 or more."),
    ("eval.every", "often", "config.eval.every: 'often' should be a whole number or None."),
    ("eval.batch_size", 0, "config.eval.batch_size: 0 should be 1 or more."),
    ("eval.splits", "unseen_artist", "config.eval.splits: 'unseen_artist' should be a list of"),
    ("checkpoint.every", 0, "config.checkpoint.every: 0 should be 1 or more."),
    ("checkpoint.keep", 0, "config.checkpoint.keep: 0 should be 1 or more."),
    ("seed", "x", "config.seed: 'x' should be a whole number."),
    ("seed", -1, "config.seed: -1 should be 0 or more."),
    ("workers", -1, "config.workers: -1 should be 0 or more."),
    ("faults", {"shar": 0.1}, "config.faults.shar: unknown key. Did you mean 'share'?"),
    ("faults", {"share": 1.5}, "config.faults.share: 1.5 should be from 0 to 1."),
    ("faults", {"record_bytes": 0}, "config.faults.record_bytes: 0 should be 1 or more."),
    ("ema", 1.0, "config.ema: 1.0 should be at least 0 and less than 1, or None."),
    ("towers.image.width", "wide", "config.towers.image.width: 'wide' should be a whole number."),
    ("objective.init_scale", "big", "config.objective.init_scale: 'big' should be a number."),
    ("optimizer.b1", "x", "config.optimizer.b1: 'x' should be a number."),
    ("optimizer.clip_norm", "x", "config.optimizer.clip_norm: 'x' should be a number or None."),
    ("schedule.peak", None, "config.schedule.peak: None should be a number."),
    ("source.limit", "few", "config.source.limit: 'few' should be a whole number or None."),
    ("next_steps", [["title", "command"]],
     "config.next_steps.0: ['title', 'command'] should be a list of 3 strings."),
    ("eval.splits", ["train", 3], "config.eval.splits.1: 3 should be a string."),
    # modalities
    ("towers.sound", {"name": "vit"}, "config: there are towers for ['image', 'sound', 'text'] "),
    ("transforms.text", ..., "config: there are towers for ['image', 'text'] but transforms for "
     "['image']; each tower needs transforms."),
    ("transforms.source", [], "config.transforms: no modality can be called 'source'; rename it."),
    ("objective.pairs", [["image", "txt"]],
     "config.objective.pairs: there is no tower for 'txt'. Did you mean 'text'?"),
    ("objective.pairs", [["image"]],
     "config.objective.pairs.0: ['image'] should be a list of 2 strings."),
    # stages
    ("stages", 3, "config.stages: 3 should be a list of sections."),
    ("stages", {"steps": 3}, "config.stages: {'steps': 3} should be a list of sections."),
    ("stages", [3], "config.stages.0: 3 should be a section, as dict(...)."),
    ("stages", [{}, {"stps": 1}], "config.stages.1.stps: unknown key. Did you mean 'steps'?"),
    ("stages", [{"cary": []}], "config.stages.0.cary: unknown key. Did you mean 'carry'?"),
    ("stages", [{}, {"objective": {"positve": "x"}}],
     "Stage 1: config.objective.positve: unknown key. Did you mean 'positives'?"),
    ("stages", [{"towers": {"image": {"name": "vot"}}}],
     "Stage 0: config.towers.image.name: there is no 'vot'."),
    ("stages", [{"steps": 0}], "Stage 0: config.steps: 0 should be 1 or more."),
    ("stages", [{"carry": "optimizer"}], "Stage 0: carry: 'optimizer' should be a list of 'opt"),
    ("stages", [{"carry": ["all"]}],
     "Stage 0: carry.0: 'all' should be 'optimizer' or 'objective' or 'teacher'."),
]  # fmt: skip


def changed(config: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *parents, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
    node: Any = config
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return config


def said(function: Any, *args: Any) -> str:
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A folder whose modules, called own_..., can be imported for the time of a test."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("dotted, value, message", CHANGED)
def test_a_wrong_config_is_refused(
    tiny_config: dict[str, Any], dotted: str, value: Any, message: str
) -> None:
    config = changed(tiny_config, dotted, value)
    assert said(experiment.stages, config).startswith(message)


@pytest.mark.parametrize("name", ["id", "index", "present", "rejected", "source", "objective"])
def test_a_modality_cannot_take_a_name_that_is_taken(
    tiny_config: dict[str, Any], name: str
) -> None:
    for section in ("towers", "transforms"):
        tiny_config[section][name] = tiny_config[section]["text"]
    expected = f"config.towers: no modality can be called '{name}'; rename it."
    assert said(experiment.stages, tiny_config) == expected


def test_nothing_is_opened_to_check_a_config(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    (stage,) = experiment.stages(tiny_config)
    assert (stage.start, stage.stop, stage.number) == (0, 6, 0)
    assert stage.settings.checkpoint == experiment.Saving(every=2, keep=3)
    assert stage.settings.eval.splits == ["unseen_artist"]
    assert not (tmp_path / "cache").exists()


def test_stages_are_changes_to_the_rest(tiny_config: dict[str, Any]) -> None:
    tiny_config["stages"] = [
        {"steps": 3, "towers": {"image": {"patch": 4}}},
        {"steps": 4, "objective": {"name": "sigmoid"}, "carry": ["objective"], "ema": None},
        {"schedule": {"peak": 0.5}},
    ]
    one, two, three = experiment.stages(tiny_config)
    assert [(s.number, s.start, s.stop) for s in (one, two, three)] == [
        (0, 0, 3),
        (1, 3, 7),
        (2, 7, 13),
    ]
    assert one.settings.towers["image"] == tiny_config["towers"]["image"] | {"patch": 4}
    assert two.settings.towers == tiny_config["towers"]
    assert two.settings.objective == {"name": "sigmoid"}  # another name: nothing is merged
    assert three.settings.schedule == tiny_config["schedule"] | {"peak": 0.5}
    assert (two.carry, one.carry) == (["objective"], ["optimizer", "objective"])
    assert (two.settings.ema, three.settings.ema) == (None, 0.9)


SOURCE = """
import numpy as np

class Source:
    splits = ("train", "val")
    label_names = {"kind": ["a", "b"]}

    def __init__(self, *, split, n=3, folder="here"):
        self.n, self.folder = n, folder

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"id": str(i), "sound": np.ones(4), "words": "a b", "kind": i % 2, "bare": 1}
"""


def own_config(tiny_config: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "own_source.py").write_text(SOURCE)
    (folder / "own_transforms.py").write_text(
        "def keep(value, *, rng, train, folder, times=1):\n    return {'value': [folder] * times}\n"
    )
    keep = [{"name": "own_transforms.keep", "times": 2}]
    tower = tiny_config["towers"]["text"]
    return tiny_config | {
        "source": {"name": "own_source", "split": "train"},
        "transforms": {"sound": keep, "words": keep},
        "towers": {"sound": tower, "words": tower},
        "objective": {"name": "supcon", "pairs": [["sound", "words"]], "positives": "kind"},
        "eval": {"splits": ["val"]},
    }


def test_an_own_source_and_own_transforms(tiny_config: dict[str, Any], own: Path) -> None:
    (stage,) = experiment.stages(own_config(tiny_config, own))
    source = experiment.open_source(stage.settings, "val")
    pipeline = experiment.build_pipeline(stage.settings, source)
    example = pipeline.apply("sound", np.ones(4), seed=(0,), train=True)
    assert example == {"value": ["here", "here"]}  # transforms that ask for it get the folder


@pytest.mark.parametrize(
    "dotted, value, message",
    [
        ("objective.positives", "kin", "config.objective.positives: the records have no 'kin'. "
         "Did you mean 'kind'?"),
        ("source.n", 0, "config.source: there are no records in 'train'."),
    ],
)  # fmt: skip
def test_what_the_records_lack(
    tiny_config: dict[str, Any], own: Path, dotted: str, value: Any, message: str
) -> None:
    config = changed(own_config(tiny_config, own), dotted, value)
    (stage,) = experiment.stages(config)
    assert said(experiment.open_source, stage.settings) == message


def test_objectives_that_ask_for_it_get_the_width(tiny_config: dict[str, Any]) -> None:
    tiny_config["objective"] = {"name": "queue", "length": 32, "positives": "index"}
    (stage,) = experiment.stages(tiny_config)
    objective: Any = experiment.build_objective(stage.settings)
    assert objective.embed_dim == tiny_config["embed_dim"]
    experiment.open_source(stage.settings)  # no record has an index, and every batch does
    tiny_config["objective"]["embed_dim"] = 3
    assert said(experiment.stages, tiny_config).startswith(
        "config.objective.embed_dim: unknown key"
    )


def test_a_modality_that_no_record_has(
    tiny_config: dict[str, Any], own: Path, one_device: Mesh
) -> None:
    """One that some records lack is fine; one that none has is refused before anything is made."""
    config = own_config(tiny_config, own)
    for section in ("towers", "transforms"):
        config[section]["soud"] = config[section].pop("sound")
    config["objective"]["pairs"] = [["soud", "words"]]
    (stage,) = experiment.stages(config)
    message = said(build, stage, one_device)
    assert message.endswith("no record seems to have a 'soud'; is that its name?")


def test_an_unknown_split_of_an_open_run(tiny_config: dict[str, Any], own: Path) -> None:
    (stage,) = experiment.stages(own_config(tiny_config, own))
    assert said(experiment.open_source, stage.settings, "vall") == (
        "There is no split 'vall'. Did you mean 'val'?"
    )


def test_own_classes_by_dotted_path(tiny_config: dict[str, Any], own: Path) -> None:
    (own / "own_parts.py").write_text(
        "import dataclasses\n"
        "import flax.linen as nn\n"
        "class Small(nn.Module):\n    embed_dim: int\n    size: int = 3\n"
        "@dataclasses.dataclass(frozen=True)\nclass Loss:\n    margin: float = 0.1\n"
        "def line(*, steps, peak):\n    return lambda step: peak * step / steps\n"
        "def plain(decayed, *, power: float = 1.0):\n    return decayed\n"
        "def count(embedded, model, *, of='x'):\n    return {'n': 1.0}\n"
    )
    tiny_config["towers"]["image"] = {"name": "own_parts.Small", "size": 5}
    tiny_config["objective"] = {"name": "own_parts.Loss", "margin": 1}
    tiny_config["schedule"] = {"name": "own_parts.line", "peak": 2.0}
    tiny_config["optimizer"] = {"name": "own_parts.plain", "power": 2.0, "weight_decay": 0.1}
    tiny_config["eval"]["evaluators"] = [{"name": "own_parts.count", "of": "y"}]
    (stage,) = experiment.stages(tiny_config)
    tower: Any = experiment.build_towers(stage.settings).modules["image"]
    assert (tower.embed_dim, tower.size) == (8, 5)
    objective: Any = experiment.build_objective(stage.settings)
    assert objective.margin == 1
    assert experiment.build_schedule(stage.settings)(3) == 1.0
    assert experiment.build_evaluators(stage.settings)[0]({}, None) == {"n": 1.0}  # type: ignore[arg-type]
    for section, key in [("towers.image", "sise"), ("optimizer", "powr"), ("schedule", "pek")]:
        message = said(experiment.stages, changed(tiny_config, f"{section}.{key}", 1))
        assert message.startswith(f"config.{section}.{key}: unknown key. Did you mean ")
