"""From sections `{"name": ..., options}` to functions: one transform, or several in turn."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines import names
from data_pipelines.errors import InputError
from data_pipelines.fits import short

Section = Mapping[str, Any]
GIVEN = ("value", "rng", "train", "folder")  # by the program, not by a config


def find(section: Section, where: str) -> Callable[..., Any]:
    """The function of `data_pipelines.transforms`, or the user's own, that a section names.

    Its options are checked, and those of the transforms that it is given as options.

    Raises:
        InputError: there is no such function, or it refuses an option.
    """
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        raise InputError(f"{where}: {short(section)} should be a section with a 'name'.")
    found = names.find("data_pipelines.transforms", section["name"], f"{where}.name", takes="value")
    names.check(found, section, where, given=GIVEN)
    for key, parameter in names.parameters(found).items():
        if parameter.annotation == Sequence[Section]:
            for i, nested in enumerate(section.get(key, ())):
                find(nested, f"{where}.{key}.{i}")
    return found


def build(
    sections: Sequence[Section], where: str, folder: Path | None = None
) -> list[Callable[..., Any]]:
    """Functions `f(value, *, rng, train)`; those that ask for `folder` get the source's."""
    made: list[Callable[..., Any]] = []
    for i, section in enumerate(sections):
        found = find(section, f"{where}.{i}")
        options = {key: value for key, value in section.items() if key != "name"}
        if "folder" in inspect.signature(found).parameters:
            options["folder"] = folder
        made.append(functools.partial(found, **options))
    return made
