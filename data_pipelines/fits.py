"""Whether a value of a config is of the type that the code behind its key asks for."""

import reprlib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from data_pipelines.errors import InputError

_WORDS = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    types.NoneType: ("None", "None"),
}
_LISTS = (list, tuple, Sequence, Iterable)
_SECTIONS = (dict, Mapping)


def check(value: Any, annotation: Any, where: str) -> None:
    """Values fit their annotation, item by item.

    Raises:
        InputError: the first that does not, by its dotted key.
    """
    kind, of = get_origin(annotation) or annotation, get_args(annotation)
    if kind in _LISTS and of and isinstance(value, list) and not _fixed(kind, of):
        for i, item in enumerate(value):
            check(item, of[0], f"{where}.{i}")
    elif kind in _SECTIONS and of and isinstance(value, Mapping):
        for key, item in value.items():
            check(item, of[1], f"{where}.{key}")
    elif not fits(value, annotation):
        raise InputError(f"{where}: {short(value)} should be {described(annotation)}.")


def fits(value: Any, annotation: Any) -> bool:
    """Whether numbers, strings, lists and dicts, as JSON has them, are what is asked for.

    A whole number is a number, a list is a tuple of that length, but True is no number and a string
    no list. Any other type that an annotation names is taken on trust.
    """
    kind, of = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, types.UnionType):
        return any(fits(value, one) for one in of)
    if kind is Literal:
        return value in of
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind in (bool, str, types.NoneType):
        return isinstance(value, kind)
    if kind is None:
        return value is None
    if kind in _LISTS:
        if not isinstance(value, list | tuple):
            return False
        if _fixed(kind, of):
            return len(value) == len(of) and all(map(fits, value, of))
        return not of or all(fits(item, of[0]) for item in value)
    if kind in _SECTIONS:
        return isinstance(value, Mapping) and (
            not of or all(fits(item, of[1]) for item in value.values())
        )
    return True


def described(annotation: Any, many: bool = False) -> str:
    """The type in words: `a whole number or None`, `a list of strings`."""
    kind, of = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, types.UnionType):
        return " or ".join(described(one, many) for one in of)
    if kind is Literal:
        return " or ".join(map(repr, of))
    if kind in _WORDS:
        return _WORDS[kind][many]
    if kind in _LISTS:
        name = "lists" if many else "a list"
        if _fixed(kind, of):
            same = len(set(of)) == 1
            items = described(of[0], many=True) if same else ", ".join(map(described, of))
            return f"{name} of {len(of)} {items}" if same else f"{name} ({items})"
        return f"{name} of {described(of[0], many=True)}" if of else name
    if kind in _SECTIONS:
        return "sections" if many else "a section, as dict(...)"
    return getattr(kind, "__name__", str(kind))


def short(value: Any) -> str:
    """A value as one line of a message shows it."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 60
    return shown.repr(value)


def _fixed(kind: Any, of: tuple[Any, ...]) -> bool:
    return kind is tuple and bool(of) and of[-1] is not Ellipsis
