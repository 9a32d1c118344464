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
from mmcl.names import nearest


def experiment_file(path: str) -> Path:
    """The file that the user means: his own, else the one of that name that mmcl brings along.

    Raises:
        InputError: there is no such experiment.
    """
    given = Path(path)
    if given.is_file():
        return given.resolve()
    for folder in _shipped():
        inside = given.parts[:1] == ("experiments",)
        shipped = folder / (given.relative_to("experiments") if inside else given)
        if shipped.is_file():
            return shipped
    offered = {f"experiments/{file.name}" for folder in _shipped() for file in folder.glob("*.py")}
    raise InputError(f"There is no experiment file '{path}'.{nearest(path, offered)}")


def _shipped() -> Iterable[Path]:
    """`mmcl/experiments` in an installed wheel, `experiments` beside `mmcl` in a checkout."""
    package = Path(__file__).resolve().parent
    return [f for f in (package / "experiments", package.parent / "experiments") if f.is_dir()]


def load(experiment: str, overrides: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The config of `FILE` or `FILE:ARG`, overridden by `(dotted key, text value)` pairs.

    An experiment file has `get_config(arg)`, which returns an `ml_collections.ConfigDict`, and may
    have `ARGS`, the values that `arg` can take beside None; every one takes `runlocal`.

    Raises:
        InputError: no such file, no such ARG, no such key, a wrong type.
    """
    path, arg = split(experiment)
    file = experiment_file(path)
    importable(experiment)
    spec = importlib.util.spec_from_file_location(f"mmcl_experiment_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} has no function get_config(arg).")
    offered = getattr(module, "ARGS", ("runlocal",))
    if arg is not None and arg not in offered:
        raise InputError(f"{path} has no ARG '{arg}'.{nearest(arg, offered)}")
    config = plain(module.get_config(arg))
    for key, text in overrides:
        override(config, key, text)
    return config


def importable(experiment: str) -> None:
    """Let modules beside the experiment file be named in its config."""
    folder = str(experiment_file(split(experiment)[0]).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)


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
    that section refuses it, with the nearest name, if he does not know it.
    """
    *parents, last = dotted.split(".")
    node: Any = config
    for i, part in enumerate([*parents, last]):
        keys = list(node) if isinstance(node, dict) else [str(k) for k in range(len(node))]
        if part not in keys and (i < len(parents) or isinstance(node, list)):
            at = ".".join(["config", *parents[:i]])
            raise InputError(f"--config.{dotted}: {at} has no key '{part}'.{nearest(part, keys)}")
        if i < len(parents):
            node = node[int(part)] if isinstance(node, list) else node[part]
            if not isinstance(node, dict | list):
                at = ".".join(["config", *parents[: i + 1]])
                raise InputError(f"--config.{dotted}: {at} is {node!r}, it has no keys.")
    key: Any = int(last) if isinstance(node, list) else last
    old = node[key] if isinstance(node, list) else node.get(key)
    node[key] = _typed(_parse(text), old, dotted)


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _typed(value: Any, old: Any, dotted: str) -> Any:
    if old is None or value is None or type(value) is type(old):
        return value
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if isinstance(old, list) and isinstance(value, tuple):
        return list(value)
    if isinstance(old, str) and not isinstance(value, str):
        return str(value)
    raise InputError(
        f"--config.{dotted}: {value!r} is a {type(value).__name__}; "
        f"it must be a {type(old).__name__}, as {old!r} is."
    )


def plain(config: Any) -> Any:
    """The config as JSON sees it: dicts, lists, numbers, strings."""
    if isinstance(config, ConfigDict | Mapping):
        return {str(key): plain(config[key]) for key in config}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def differences(old: Any, new: Any, at: str = "config") -> list[str]:
    """`config.a.b: 1, now 2` for every leaf in which two plain configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        missing = "(not there)"
        return [
            line
            for key in keys
            for line in differences(old.get(key, missing), new.get(key, missing), f"{at}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, (a, b) in enumerate(zip(old, new))
            for line in differences(a, b, f"{at}.{i}")
        ]
    return [] if old == new else [f"{at}: {old!r}, now {new!r}"]


def read(workdir: Path) -> dict[str, Any]:
    """What `write` wrote: {"experiment": FILE[:ARG], "config": ...}."""
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{workdir} is no run: it has no config.json.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}).") from None


def write(workdir: Path, experiment: str, config: dict[str, Any]) -> None:
    """The resolved config of a run, as `config.json` in its workdir."""
    text = json.dumps({"experiment": experiment, "config": config}, indent=2)
    temporary = workdir / "config.json.tmp"
    temporary.write_text(text + "\n")
    temporary.rename(workdir / "config.json")
