"""From a name in a config to the object it means, and from a section to a checked call.

A name is looked up in its home first (`"infonce"` among `mmcl.objectives`), then as a dotted path
to the user's own code (`"my_losses.margin"` or `"my_losses.MarginLoss"`). Where a home is a package
of modules, a module stands for the one class or function that it is there for: its `face`.
"""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from data_pipelines import fits
from data_pipelines.errors import InputError
from data_pipelines.own_code import own_code


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `names`, else the list of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There is: {', '.join(names)}." if names else ""


def find(home: str, name: str, where: str, *, face: str = "", takes: str = "") -> Any:
    """The class or function that `name` means.

    Args:
        home: module or package of the built-in ones, e.g. `"mmcl.objectives"`.
        name: a built-in name (`"infonce"`, `"image.crop"`) or a dotted path to the user's own.
        where: the config key that holds the name, for the error message.
        face: the attribute that a module stands for, e.g. `"Objective"`; or else
        takes: the parameter that tells the functions that may be named here from others in the same
            module, e.g. `"decayed"`.

    Raises:
        InputError: nothing has that name, and the message suggests the nearest; or the user's own
            module cannot be imported.
    """
    found = _walk(f"{home}.{name}", root=home)
    if found is None:
        with own_code(f"{where}: cannot import '{name}'"):
            found = _walk(name, root=name.partition(".")[0])
    if isinstance(found, ModuleType) and _has(found, face):
        found = getattr(found, face)
    if isinstance(found, ModuleType) and not found.__name__.startswith(home):
        bare = f"a module without a '{face}'" if face else "a module"
        raise InputError(f"{where}: '{name}' is {bare}; name what is in it: '{name}.NAME'.")
    if found is None or isinstance(found, ModuleType):
        there = offered(home, face, takes)
        inside = [other for other in there if other.startswith(f"{name}.")]
        raise InputError(f"{where}: there is no '{name}'.{nearest(name, inside or there)}")
    if not callable(found):
        kind = type(found).__name__
        raise InputError(f"{where}: '{name}' is a {kind}; it must be a class or function.")
    return found


def _walk(path: str, root: str) -> Any:
    """Import the longest module prefix of a dotted path and follow the rest as attributes."""
    parts = path.split(".")
    if not all(map(str.isidentifier, parts)) or importlib.util.find_spec(root) is None:
        return None
    for n in range(len(parts), 0, -1):
        module_name = ".".join(parts[:n])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                continue  # this prefix is not a module: a shorter one may hold the rest
            raise
        found: Any = module
        for part in parts[n:]:
            if part.startswith("_") or not hasattr(found, part):
                return None
            found = getattr(found, part)
        return found
    return None


def offered(home: str, face: str = "", takes: str = "") -> list[str]:
    """What can be named: modules with the face, or functions that take the parameter."""
    package = importlib.import_module(home)
    names = [m.name for m in pkgutil.iter_modules(getattr(package, "__path__", ()))]
    modules: dict[str, ModuleType] = {} if names else {"": package}
    for name in names:
        with contextlib.suppress(ImportError):  # of a package that an extra would install
            modules[name] = importlib.import_module(f"{home}.{name}")
    if face:
        return [name for name, module in modules.items() if _has(module, face)]
    return [
        f"{name}.{key}".lstrip(".")
        for name, module in modules.items()
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
        if not key.startswith("_") and takes in _keywords(value)
    ]


def _has(module: ModuleType, face: str) -> bool:
    """Whether the module has that, and not only says what it must look like."""
    return face in vars(module) and not getattr(vars(module)[face], "_is_protocol", False)


def known(keys: Iterable[str], offered: Iterable[str], where: str) -> None:
    """Every key must be one of those offered.

    Raises:
        InputError: an unknown key, with the nearest of `offered`.
    """
    offered = list(offered)
    for key in keys:
        if key not in offered:
            raise InputError(f"{where}.{key}: unknown key.{nearest(key, offered)}")


def check(
    function: Callable[..., Any],
    section: Mapping[str, Any],
    where: str,
    given: Iterable[str] = (),
    also: Mapping[str, inspect.Parameter] | None = None,
) -> None:
    """Every key of a config section (but `name`) must be a parameter of `function`, of its type,
    and every parameter without a default a key or `given` by the program: nothing stays unused.

    Args:
        also: further parameters that a key may be, of whoever else reads the section.

    Raises:
        InputError: an unknown or missing key, with the nearest name, or a value of another type.
    """
    theirs = {*given, "name", "parent"}  # flax adds the last two
    every = {**(also or {}), **_keywords(function)}
    settable = {key: parameter for key, parameter in every.items() if key not in theirs}
    if not _takes_any(function):
        known((key for key in section if key != "name"), settable, where)
    for key, parameter in settable.items():
        if key not in section:
            if parameter.default is parameter.empty:
                raise InputError(f"{where}.{key}: missing; it has no default.")
        else:
            fits.check(section[key], parameter.annotation, f"{where}.{key}")


def call(function: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> Any:
    """`function` with the checked keys of a section and, of what is `given`, what it asks for."""
    check(function, section, where, given)
    options = {key: value for key, value in section.items() if key != "name"}
    wanted = {k: v for k, v in given.items() if k in _keywords(function) or _takes_any(function)}
    return function(**wanted, **options)


def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a signature; none where a built-in of Python does not tell."""
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, AttributeError, TypeError, SyntaxError):  # annotations for type checkers
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: p for name, p in parameters(function).items() if p.kind in kinds}


def _takes_any(function: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in parameters(function).values()]
    return inspect.Parameter.VAR_KEYWORD in kinds
