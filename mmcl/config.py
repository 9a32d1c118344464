"""Experiment files and their configs: find, load, override, compare, write."""

import ast
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.errors import InputError
from data_pipelines.fits import described, fits, short
from data_pipelines.names import nearest
from data_pipelines.own_code import own_code

# sections that an experiment need not have
LEFT_OUT = ("checkpoint", "eval", "faults", "guard", "mesh", "teacher", "wandb")


def experiment_file(path: str) -> Path:
    """The file that the user means: his own, else the one of that name that mmcl brings along.

    Raises:
        InputError: there is no such experiment.
    """
    given = Path(path)
    if given.is_file() and given.suffix == ".py":
        return given.resolve()
    for folder in _folders():
        inside = given.parts[:1] == ("experiments",)
        brought = folder / (given.relative_to("experiments") if inside else given)
        if brought.is_file() and brought.suffix == ".py":
            return brought
    beside = given.parent.glob("*.py") if given.parent.is_dir() else ()
    offered = {*map(str, beside), *(f"experiments/{file.name}" for file in brought_along())}
    raise InputError(f"There is no experiment file '{path}'.{nearest(path, offered)}")


def brought_along() -> list[Path]:
    """The experiment files that come with mmcl."""
    return sorted(file for folder in _folders() for file in folder.glob("*.py"))


def _folders() -> list[Path]:
    """`mmcl/experiments` in an installed wheel, `experiments` beside `mmcl` in a checkout."""
    package = Path(__file__).resolve().parent
    return [f for f in (package / "experiments", package.parent / "experiments") if f.is_dir()]


def load(experiment: str, overrides: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The config of `FILE` or `FILE:ARG`, overridden by `(dotted key, text value)` pairs.

    An experiment file has `get_config(arg)`, which returns an `ml_collections.ConfigDict`, and may
    have `ARGS`, the values that `arg` can take beside None; every one takes `runlocal`.

    Raises:
        InputError: no such file, no such ARG, an error in the file, no such key, a wrong type.
    """
    path, arg = split(experiment)
    file = experiment_file(path)
    importable(file)
    with own_code("The experiment fails"):
        spec = importlib.util.spec_from_file_location(f"mmcl_experiment_{file.stem}", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} has no function get_config(arg); every experiment needs it.")
    offered = getattr(module, "ARGS", ("runlocal",))
    if arg is not None and arg not in offered:
        raise InputError(f"{path} has no ARG '{arg}'.{nearest(arg, offered)}")
    with own_code(f"get_config of {file} fails"):
        made = module.get_config(arg)
        config = plain(made)
    if not isinstance(config, dict):
        raise InputError(
            f"get_config of {path} returns {short(made)}; it must return a ml_collections "
            "ConfigDict."
        )
    for key, text in overrides:
        override(config, key, text)
    _check_plain(config)
    return config


def importable(file: Path) -> None:
    """Let modules beside the experiment file be named in its config, and let a copy of one that
    mmcl brings along, wherever it lies, still find its parent.
    """
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    sys.path += [str(folder) for folder in _folders() if str(folder) not in sys.path]


def split(experiment: str) -> tuple[str, str | None]:
    """`FILE:ARG` -> (FILE, ARG)."""
    path, colon, arg = experiment.partition(":")
    return path, arg if colon else None


def name(experiment: str) -> str:
    """`path/to/quickstart.py:runlocal` -> `quickstart-runlocal`."""
    path, arg = split(experiment)
    return Path(path).stem + (f"-{arg}" if arg else "")


def override(config: dict[str, Any], dotted: str, text: str) -> None:
    """Set `a.b.0.c` to the Python literal (or string) `text`; numbers index lists.

    A value keeps its type (None takes any). A last key that is not there is added: whoever reads
    that section refuses it, with the nearest name, if he does not know it. So is a section that
    experiments leave out.

    Raises:
        InputError: no such section, or a value of another type.
    """
    option = f"--config.{dotted}"
    node: Any = config
    at = "config"
    *parents, last = dotted.split(".")
    if parents and parents[0] in LEFT_OUT:
        config.setdefault(parents[0], {})
    for part in parents:
        node = node[_key(node, part, at, option)]
        at = f"{at}.{part}"
    adding = isinstance(node, dict) and last not in node and last != ""
    key = last if adding else _key(node, last, at, option)
    node[key] = _typed(text, None if adding else node[key], option)


def _key(node: Any, part: str, at: str, option: str) -> Any:
    """What indexes a section or list by a part of a dotted key, which must be there."""
    if not isinstance(node, dict | list):
        raise InputError(f"{option}: {at} is {short(node)}, which has no keys.")
    keys = list(node) if isinstance(node, dict) else [str(i) for i in range(len(node))]
    if part not in keys:
        kind = "key" if isinstance(node, dict) else "item"
        raise InputError(f"{option}: {at} has no {kind} '{part}'.{nearest(part, keys)}")
    return int(part) if isinstance(node, list) else part


def _typed(text: str, old: Any, option: str) -> Any:
    value = plain(_parse(text))
    if isinstance(old, str) and value is not None:
        return text if not isinstance(value, str) else value
    kind = type(old)
    if old is None or value is None or fits(value, kind):
        return float(value) if kind is float and value is not None else value
    said = described(kind)
    if isinstance(old, dict):
        said = f"a section; set one of its keys: {', '.join(old)}"
    raise InputError(f"{option}: {short(value)} should be {said}.")


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def plain(config: Any) -> Any:
    """The config as JSON sees it: dicts, lists, numbers, strings."""
    if isinstance(config, ConfigDict | Mapping):
        return {str(key): plain(config[key]) for key in config}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def _check_plain(value: Any, at: str = "config") -> None:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            _check_plain(item, f"{at}.{key}")
    elif not isinstance(value, bool | int | float | str | None):
        raise InputError(
            f"{at}: {short(value)} is a {type(value).__name__}; a config holds numbers, strings, "
            "True, False, None, lists and sections."
        )


def differences(old: Any, new: Any, at: str = "config") -> list[str]:
    """`config.a.b: 1, now 2` for every leaf in which two plain configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key, _NOTHING), new.get(key, _NOTHING), f"{at}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, (a, b) in enumerate(zip(old, new))
            for line in differences(a, b, f"{at}.{i}")
        ]
    return [] if old == new else [f"{at}: {short(old)}, now {short(new)}"]


class _Nothing:
    def __repr__(self) -> str:
        return "not there"


_NOTHING = _Nothing()


def read(workdir: Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
        InputError: the folder holds no run, or its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{workdir} is no run: it has no config.json.")
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(written["config"], dict) or not isinstance(written["experiment"], str):
            raise TypeError("not what mmcl writes")
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): put it back from a copy, or train in another --workdir."
        ) from error
    return written


def write(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """The resolved config of a run, as `config.json` in its workdir.

    It is {"experiment": FILE[:ARG] as given, "file": its absolute path, beside which modules are
    found, or None, "config": ...}.
    """
    try:
        file = str(experiment_file(split(experiment)[0]))
    except InputError:  # trained from Python, under a name that is no file's
        file = None
    text = json.dumps({"experiment": experiment, "file": file, "config": config}, indent=2)
    temporary = workdir / "config.json.tmp"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.rename(workdir / "config.json")
