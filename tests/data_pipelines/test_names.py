"""From names and sections of a config to objects and calls; what cannot be found says why."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import names
from data_pipelines.errors import InputError

HOMES: dict[str, dict[str, str]] = {
    "mmcl.models": {"face": "Tower"},
    "mmcl.objectives": {"face": "Objective"},
    "mmcl.evals": {"face": "evaluate"},
    "data_pipelines.sources": {"face": "Source"},
    "data_pipelines.transforms": {"takes": "value"},
    "mmcl.optimizers": {"takes": "decayed"},
    "mmcl.schedules": {"takes": "steps"},
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Writes modules that can be imported for the time of a test."""
    sys.path.insert(0, str(tmp_path))
    written = []

    def write(name: str, text: str) -> Path:
        written.append(name)
        (tmp_path / f"{name}.py").write_text(text)
        return tmp_path / f"{name}.py"

    yield write
    sys.path.remove(str(tmp_path))
    for name in written:
        sys.modules.pop(name.replace("/", ".").removesuffix(".__init__"), None)


def said(home: str, name: str) -> str:
    with pytest.raises(InputError) as caught:
        names.find(home, name, "config.x.name", **HOMES[home])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "home, name, module",
    [
        ("mmcl.models", "vit", "mmcl.models.vit"),
        ("mmcl.objectives", "infonce", "mmcl.objectives.infonce"),
        ("mmcl.evals", "retrieval", "mmcl.evals.retrieval"),
        ("data_pipelines.sources", "emoji", "data_pipelines.sources.emoji"),
        ("data_pipelines.transforms", "image.resize", "data_pipelines.transforms.image"),
        ("mmcl.optimizers", "lion", "mmcl.optimizers"),
        ("mmcl.schedules", "constant", "mmcl.schedules"),
    ],
)
def test_a_name_means_what_its_module_is_there_for(home: str, name: str, module: str) -> None:
    found = names.find(home, name, "", **HOMES[home])
    assert found.__module__ == module
    assert found.__name__ == HOMES[home].get("face", name.rpartition(".")[2])


@pytest.mark.parametrize(
    "home, wrong, right",
    [
        ("mmcl.models", "vot", "vit"),
        ("mmcl.objectives", "infonc", "infonce"),
        ("mmcl.evals", "retreival", "retrieval"),
        ("data_pipelines.sources", "emojis", "emoji"),
        ("data_pipelines.transforms", "image.rezise", "image.resize"),
        ("data_pipelines.transforms", "text.tokenise", "text.tokenize"),
        ("mmcl.optimizers", "adamvv", "adamw"),
        ("mmcl.schedules", "warmup_cosin", "warmup_cosine"),
    ],
)
def test_the_nearest_name_is_suggested(home: str, wrong: str, right: str) -> None:
    assert said(home, wrong) == f"config.x.name: there is no '{wrong}'. Did you mean '{right}'?"


@pytest.mark.parametrize(
    "home, has, has_not",
    [
        ("data_pipelines.sources", ["emoji", "molecules"], ["emoji_build", "emoji_families"]),
        ("mmcl.models", ["text", "vit"], ["embedding", "towers", "transformer"]),
        ("mmcl.objectives", ["infonce", "supcon"], ["side", "temperature", "term"]),
        ("mmcl.evals", ["retrieval", "zeroshot"], ["embed", "embedded"]),
        ("mmcl.optimizers", ["adamw", "lion", "muon"], ["make", "frozen", "find"]),
        ("data_pipelines.transforms", ["image.affine", "text.tokenize"], ["image", "text"]),
        ("mmcl.schedules", ["constant", "warmup_rsqrt"], ["optax"]),
    ],
)
def test_only_what_can_be_named_is_offered(home: str, has: list[str], has_not: list[str]) -> None:
    message = said(home, "qqqqqqqq")
    assert message.startswith("config.x.name: there is no 'qqqqqqqq'. There is: ")
    offered = message.partition("There is: ")[2].rstrip(".").split(", ")
    assert set(has) <= set(offered) and not set(has_not) & set(offered)
    for name in offered:
        names.find(home, name, "", **HOMES[home])


def test_helper_modules_are_not_there_for_a_config() -> None:
    assert "there is no 'emoji_build'" in said("data_pipelines.sources", "emoji_build")
    assert "there is no 'transformer'" in said("mmcl.models", "transformer")
    message = said("data_pipelines.transforms", "image")
    assert "there is no 'image'" in message and "text.tokenize" not in message


@pytest.mark.parametrize("name", ["", ".", "vit.", ".vit", "a..b", "a b", "1", "ä-ö", "no.such.x"])
def test_odd_names_are_no_names(name: str) -> None:
    for home in HOMES:
        assert f"config.x.name: there is no '{name}'." in said(home, name)


def test_own_modules_and_classes(own: Callable[[str, str], Path]) -> None:
    own("own_towers", "class Tower:\n    pass\nclass Other:\n    class Inner:\n        pass\n")
    own("own_functions", "def cut(value):\n    return value\n")
    for name, expected in [
        ("own_towers", "Tower"),
        ("own_towers.Other", "Other"),
        ("own_towers.Other.Inner", "Inner"),
    ]:
        assert names.find("mmcl.models", name, "", face="Tower").__name__ == expected
    transform = names.find("data_pipelines.transforms", "own_functions.cut", "", takes="value")
    assert transform("x") == "x"


def test_own_modules_that_cannot_be_used(own: Callable[[str, str], Path]) -> None:
    own("own_things", "number = 3\n_hidden = dict\ndef f(value):\n    pass\n")
    where = "config.x.name: "
    message = said("mmcl.models", "own_things")
    assert message.startswith(f"{where}'own_things' is a module without a 'Tower'; ")
    message = said("data_pipelines.transforms", "own_things")
    assert message == f"{where}'own_things' is a module; name what is in it: 'own_things.NAME'."
    message = said("mmcl.models", "own_things.number")
    assert message == f"{where}'own_things.number' is a int; it must be a class or function."
    assert "there is no 'own_things.missing'" in said("mmcl.models", "own_things.missing")
    assert "there is no 'own_things._hidden'" in said("mmcl.models", "own_things._hidden")


@pytest.mark.parametrize(
    "text, line, error",
    [
        ("\nimport ow\n", 2, "ModuleNotFoundError: No module named 'ow'"),
        (
            "import own_failing.inner\n",
            1,
            "ModuleNotFoundError: No module named 'own_failing.inner'",
        ),
        ("class Tower(:\n", 1, "SyntaxError: invalid syntax"),
        ("x = 1\nx.y\n", 2, "AttributeError: 'int' object has no attribute 'y'"),
    ],
)
def test_own_modules_that_fail(
    own: Callable[[str, str], Path], text: str, line: int, error: str
) -> None:
    file = own("own_failing", text)
    message = said("mmcl.models", "own_failing")
    where = f"config.x.name: cannot import 'own_failing': {file}, line {line}: "
    assert message.startswith(where + error)


def test_a_failure_of_a_built_in_module_is_not_blamed_on_the_user(
    own: Callable[[str, str], Path], tmp_path: Path
) -> None:
    (tmp_path / "own_home").mkdir()
    own("own_home/__init__", "")
    own("own_home/broken", "import no_such_package\n")
    own("own_home/whole", "class Tower:\n    pass\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        names.find("own_home", "broken", "", face="Tower")
    with pytest.raises(InputError, match="There is: whole"):  # the broken one is not offered
        names.find("own_home", "zzz", "", face="Tower")


def function(a: int, b: float = 1.0, *, c: str | None = None, given: Any = None) -> tuple[Any, ...]:
    return a, b, c, given


def test_a_checked_call() -> None:
    section = {"name": "function", "a": 1, "c": "x"}
    assert names.call(function, section, "config.f", given=5, unwanted=6) == (1, 1.0, "x", 5)


@pytest.mark.parametrize(
    "section, message",
    [
        ({"a": 1, "bb": 2}, "config.f.bb: unknown key. Did you mean 'b'?"),
        ({"a": 1, "given": 2}, "config.f.given: unknown key. There is: a, b, c."),
        ({}, "config.f.a: missing; it has no default."),
        ({"a": "one"}, "config.f.a: 'one' should be a whole number."),
        ({"a": 1, "b": "two"}, "config.f.b: 'two' should be a number."),
        ({"a": 1, "c": 3}, "config.f.c: 3 should be a string or None."),
        ({"a": True}, "config.f.a: True should be a whole number."),
    ],
)
def test_a_section_is_checked(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        names.call(function, section, "config.f", given=0)
    assert str(caught.value) == message


def test_a_function_that_takes_anything_does() -> None:
    def anything(a: int, **options: Any) -> dict[str, Any]:
        return options

    assert names.call(anything, {"a": 1, "z": 2}, "", program=3) == {"z": 2, "program": 3}


def test_keys_that_somebody_else_reads() -> None:
    also = names.parameters(lambda extra=1: None)
    names.check(function, {"a": 1, "extra": 2}, "config.f", also=also)
    with pytest.raises(InputError, match="extr: unknown key. Did you mean 'extra'"):
        names.check(function, {"a": 1, "extr": 2}, "config.f", also=also)


def test_annotations_that_cannot_be_resolved_are_taken_on_trust() -> None:
    def typed(a: "NoSuchType", b: "int" = 0) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    names.check(typed, {"a": object()}, "")
