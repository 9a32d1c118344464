"""Experiment files, overrides, comparison and config.json."""

import copy
import dataclasses
import json
import math
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from mmcl import config as configs
from mmcl import experiment

GOOD = """
from ml_collections import ConfigDict

ARGS = ("runlocal", "large")

def get_config(arg=None):
    config = ConfigDict()
    config.steps = {"runlocal": 1, "large": 100}.get(arg, 10)
    config.rate = 0.1
    config.named = dict(name="x", sizes=(1, 2), on=True, nothing=None)
    config.listed = [dict(name="y"), dict(name="z", a=1)]
    return config
"""
PLAIN: dict[str, Any] = {
    "steps": 10,
    "rate": 0.1,
    "named": {"name": "x", "sizes": [1, 2], "on": True, "nothing": None},
    "listed": [{"name": "y"}, {"name": "z", "a": 1}],
}


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "exp.py").write_text(GOOD)
    return tmp_path / "exp.py"


def said(function: Any, *args: Any) -> str:
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_config_of_a_file_and_its_args(file: Path) -> None:
    assert configs.load(str(file)) == PLAIN
    assert configs.load(f"{file}:large")["steps"] == 100
    assert configs.load(f"{file}:runlocal", [("rate", "1"), ("listed.1.a", "5")]) == PLAIN | {
        "steps": 1,
        "rate": 1.0,
        "listed": [{"name": "y"}, {"name": "z", "a": 5}],
    }
    assert str(file.parent) in sys.path  # for modules beside it


def test_experiments_that_come_along_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = configs.experiment_file("experiments/quickstart.py")
    assert shipped == configs.experiment_file("quickstart.py") and shipped.is_absolute()
    assert shipped in configs.brought_along()
    assert configs.load("experiments/quickstart.py:runlocal")["steps"] >= 1
    (tmp_path / "quickstart.py").write_text(GOOD)
    assert configs.experiment_file("quickstart.py") == tmp_path / "quickstart.py"  # his own first


def test_names_of_runs() -> None:
    assert configs.name("path/to/quickstart.py:runlocal") == "quickstart-runlocal"
    assert configs.name("quickstart.py") == "quickstart"


def test_a_missing_file_or_arg(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(configs.load, "experiments/quickstrt.py") == (
        "There is no experiment file 'experiments/quickstrt.py'. "
        "Did you mean 'experiments/quickstart.py'?"
    )
    assert said(configs.load, "./expp.py") == (
        "There is no experiment file './expp.py'. Did you mean 'exp.py'?"
    )
    assert said(configs.load, str(tmp_path)).startswith("There is no experiment file ")
    (tmp_path / "notes.txt").write_text(GOOD)
    assert said(configs.load, "notes.txt").startswith("There is no experiment file 'notes.txt'.")
    assert said(configs.load, "exp.py:lage") == "exp.py has no ARG 'lage'. Did you mean 'large'?"
    assert "no ARG ''. There is: large, runlocal." in said(configs.load, "exp.py:")


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(:\n", "The experiment fails: {file}, line 1: SyntaxError: "),
        ("import no_such\n", "The experiment fails: {file}, line 1: ModuleNotFoundError: "),
        ("\nx = {}['a']\n", "The experiment fails: {file}, line 2: KeyError: 'a'"),
        ("x = 1\n", "{file} has no function get_config(arg); "),
        (
            "def get_config(arg):\n    return arg.x\n",
            "get_config of {file} fails: {file}, line 2: AttributeError: ",
        ),
        (
            "from ml_collections import ConfigDict\ndef get_config(arg):\n  c = ConfigDict()\n"
            "  c.towers = dict(a=1)\n  c.towers.b.width = 3\n  return c\n",
            "get_config of {file} fails: {file}, line 5: AttributeError: ",
        ),
        (
            "from ml_collections import config_dict\ndef get_config(arg):\n"
            "  return config_dict.create(steps=config_dict.required_placeholder(int))\n",
            "get_config of {file} fails: ",
        ),
        ("def get_config():\n    return {{}}\n", "get_config of {file} fails: TypeError: "),
        ("def get_config(arg):\n    pass\n", "get_config of {file} returns None; it must return"),
        (
            "def get_config(arg):\n    return {'a': [{'b': print}]}\n",
            "config.a.0.b: <built-in function print> is a builtin_function_or_method; a config",
        ),
        (
            "import numpy\ndef get_config(arg):\n    return {'rate': numpy.float32(1)}\n",
            "config.rate: np.float32(1.0) is a float32; a config holds numbers, strings,",
        ),
    ],
)
def test_an_experiment_that_fails(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    assert said(configs.load, str(file)).startswith(message.format(file=file))


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("steps", "1_000", 1000),
        ("rate", "2", 2.0),
        ("rate", "1e-3", 1e-3),
        ("named.name", "123", "123"),
        ("named.name", "1e3", "1e3"),
        ("named.name", "'quoted'", "quoted"),
        ("named.name", "a b=c", "a b=c"),
        ("named.name", "", ""),
        ("named.on", "false", False),
        ("named.on", "False", False),
        ("named.sizes", "(3, 4)", [3, 4]),
        ("named.sizes.1", "7", 7),
        ("named.nothing", "{'a': (1,)}", {"a": [1]}),
        ("named.nothing", "[1, 2", "[1, 2"),
        ("named.on", "none", None),
        ("steps", "None", None),
        ("listed.0.new", "0.5", 0.5),
        ("new", "{[]: 1}", "{[]: 1}"),
    ],
)
def test_an_override(key: str, text: str, value: Any) -> None:
    config = copy.deepcopy(PLAIN)
    configs.override(config, key, text)
    at: Any = config
    for part in key.split("."):
        at = at[int(part)] if isinstance(at, list) else at[part]
    assert at == value and type(at) is type(value)
    changed = configs.differences(PLAIN, config)
    assert changed and all(line.startswith(f"config.{key}") for line in changed)


@pytest.mark.parametrize(
    "key, text, message",
    [
        ("nmaed.on", "1", "config has no key 'nmaed'. Did you mean 'named'?"),
        ("named.q.a", "1", "config.named has no key 'q'. There is: name, nothing, on, sizes."),
        ("steps.a", "1", "config.steps is 10, which has no keys."),
        ("named.on.x.y", "1", "config.named.on is True, which has no keys."),
        ("listed.2.a", "1", "config.listed has no item '2'. There is: 0, 1."),
        ("listed.first.a", "1", "config.listed has no item 'first'. There is: 0, 1."),
        ("named.sizes.2", "1", "config.named.sizes has no item '2'. There is: 0, 1."),
        ("named.sizes.x", "1", "config.named.sizes has no item 'x'. There is: 0, 1."),
        ("named.sizes.-1", "1", "config.named.sizes has no item '-1'. Did you mean '1'?"),
        ("listed.1.a.b", "1", "config.listed.1.a is 1, which has no keys."),
        ("", "1", "config has no key ''."),
        ("named.", "1", "config.named has no key ''."),
        ("named..on", "1", "config.named has no key ''."),
        ("steps", "ten", "'ten' should be a whole number."),
        ("steps", "1.5", "1.5 should be a whole number."),
        ("steps", "True", "True should be a whole number."),
        ("rate", "fast", "'fast' should be a number."),
        ("named.on", "1", "1 should be True or False."),
        ("named.sizes", "3", "3 should be a list."),
        ("named", "x", "'x' should be a section; set one of its keys: name, sizes, on, nothing."),
        ("listed.0", "x", "'x' should be a section; set one of its keys: name."),
    ],
)
def test_an_override_that_is_wrong(key: str, text: str, message: str) -> None:
    config = copy.deepcopy(PLAIN)
    assert said(configs.override, config, key, text).startswith(f"--config.{key}: {message}")
    assert config == PLAIN


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
trees = st.dictionaries(st.text(), values, max_size=4)


@given(trees, trees)
def test_differences_are_none_exactly_for_equal_configs(a: Any, b: Any) -> None:
    assert configs.differences(a, copy.deepcopy(a)) == []
    assert (configs.differences(a, b) == []) == (a == b)


def test_differences_name_what_changed() -> None:
    new = copy.deepcopy(PLAIN) | {"steps": 11, "more": 1}
    new["listed"][1]["a"] = 2
    new["named"]["sizes"] = [1]
    del new["rate"]
    assert configs.differences(PLAIN, new) == [
        "config.steps: 10, now 11",
        "config.rate: 0.1, now not there",
        "config.named.sizes: [1, 2], now [1]",
        "config.listed.1.a: 1, now 2",
        "config.more: not there, now 1",
    ]


@given(config=trees)
def test_config_json_gives_back_what_was_written(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    configs.write(folder, "experiments/quickstart.py:runlocal", config)
    written = configs.read(folder)
    assert written["config"] == config
    assert written["experiment"] == "experiments/quickstart.py:runlocal"
    assert Path(written["file"]) == configs.experiment_file("quickstart.py")
    assert [file.name for file in folder.iterdir()] == ["config.json"]


def test_a_name_that_is_no_file_is_kept_too(tmp_path: Path) -> None:
    configs.write(tmp_path, "from a notebook", {})
    assert configs.read(tmp_path) == {"experiment": "from a notebook", "file": None, "config": {}}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"config": {}}', '{"experiment": "x"}', "\udcff",
     '{"experiment": "x", "config": []}', '{"experiment": null, "config": {}}'],
)  # fmt: skip
def test_a_damaged_config_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    message = said(configs.read, tmp_path)
    assert message.startswith(f"{tmp_path / 'config.json'} is damaged (")
    assert message.endswith("): put it back from a copy, or train in another --workdir.")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert said(configs.read, tmp_path) == f"{tmp_path} is no run: it has no config.json."


def test_numbers_survive_json_exactly(tmp_path: Path) -> None:
    numbers = {"a": 0.1 + 0.2, "b": 1e-45, "c": math.inf, "d": 2**70, "e": -0.0}
    configs.write(tmp_path, "x", numbers)
    assert configs.read(tmp_path)["config"] == numbers
    assert json.loads((tmp_path / "config.json").read_text())["config"]["a"] == 0.1 + 0.2


def test_a_section_that_experiments_leave_out_can_be_set() -> None:
    config = copy.deepcopy(PLAIN)
    configs.override(config, "mesh.fsdp", "4")
    assert config == PLAIN | {"mesh": {"fsdp": 4}}

    def is_section(hint: object) -> bool:
        return any(dataclasses.is_dataclass(kind) for kind in (hint, *typing.get_args(hint)))

    hints = typing.get_type_hints(experiment.Settings)
    sections = {name for name, hint in hints.items() if is_section(hint)}
    assert set(configs.LEFT_OUT) == sections
