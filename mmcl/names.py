"""From a name in a config to the object it means, and from a section to a checked call.

A name is looked up in its home first (`"softmax"` among `mmcl.objectives`), then as a dotted path
to the user's own code (`"my_losses.margin"` or `"my_losses.MarginLoss"`). A module stands for the
one public class or function that it is there for: the attribute named by `face`.
"""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from data_pipelines.errors import InputError


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `names`, else the list of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There is: {', '.join(names)}." if names else ""


def find(home: str, name: str, where: str, face: str | None = None) -> Any:
    """The object that `name` means.

    Args:
        home: module or package of the built-in ones, e.g. `"mmcl.objectives"`.
        name: a built-in name (`"softmax"`, `"image.crop"`) or a dotted path to the user's own.
        where: the config key that holds the name, for the error message.
        face: the attribute that a module stands for, e.g. `"Objective"`.

    Raises:
        InputError: nothing has that name; the message suggests the nearest.
    """
    found = _walk(f"{home}.{name}", root=home)
    if found is None:
        found = _walk(name, root=name.partition(".")[0])
    if isinstance(found, ModuleType):
        if face is None or not hasattr(found, face):
            raise InputError(f"{where}: '{name}' is a module without a '{face}'.")
        found = getattr(found, face)
    if found is None:
        raise InputError(f"{where}: there is no '{name}'.{nearest(name, _offered(home))}")
    return found


def _walk(path: str, root: str) -> Any:
    """Import the longest module prefix of a dotted path and follow the rest as attributes."""
    if importlib.util.find_spec(root) is None:
        return None
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        module_name = ".".join(parts[:n])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(error.name)):
                continue  # this prefix is not a module: a shorter one may hold the rest
            raise
        found: Any = module
        for part in parts[n:]:
            if part.startswith("_") or not hasattr(found, part):
                return None
            found = getattr(found, part)
        return found
    return None


def _offered(home: str) -> list[str]:
    module = importlib.import_module(home)
    if hasattr(module, "__path__"):
        return [m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_")]
    return [
        n
        for n, v in vars(module).items()
        if inspect.isfunction(v) and v.__module__ == home and not n.startswith("_")
    ]


def check(
    function: Callable[..., Any], section: Mapping[str, Any], where: str, given: Iterable[str] = ()
) -> None:
    """Every key of a config section (but `name`) must be a parameter of `function`, and every
    parameter without a default must be a key or `given` by the program: nothing stays unused.

    Raises:
        InputError: an unknown or missing key, with the nearest name.
    """
    known = _keywords(function)
    theirs = {**dict.fromkeys(given), "name": None, "parent": None}  # flax adds the last two
    settable = [key for key in known if key not in theirs]
    for key in section:
        if key != "name" and key not in settable and not _takes_any(function):
            raise InputError(f"{where}.{key}: unknown key.{nearest(key, settable)}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in section and key not in theirs:
            raise InputError(f"{where}.{key}: missing; it has no default.")


def call(function: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> Any:
    """`function` with the checked keys of a section and, of what is `given`, what it asks for."""
    check(function, section, where, given)
    options = {key: value for key, value in section.items() if key != "name"}
    wanted = {k: v for k, v in given.items() if k in _keywords(function) or _takes_any(function)}
    return function(**wanted, **options)


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind in kinds}


def _takes_any(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
