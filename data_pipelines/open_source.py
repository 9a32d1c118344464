"""From a section `{"name": ..., options}` to an open source of records."""

from collections.abc import Mapping
from typing import Any

from data_pipelines import names
from data_pipelines.errors import InputError
from data_pipelines.fits import short
from data_pipelines.pipeline import Source


def find_source(section: Mapping[str, Any], where: str = "source") -> type:
    """The class that a section names, its options checked; nothing is opened.

    Args:
        section: `name`, a module of `data_pipelines.sources` or a dotted path to the user's own
            class, and its options.
        where: the config key of the section, for error messages.

    Raises:
        InputError: there is no such source, or it refuses an option.
    """
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        raise InputError(f"{where}: {short(section)} should be a section with a 'name'.")
    found = names.find("data_pipelines.sources", section["name"], f"{where}.name", face="Source")
    names.check(found, section, where)
    return found


def open_source(section: Mapping[str, Any], where: str = "source") -> Source:
    """The source that a section describes (which may prepare its data first).

    Raises:
        InputError: there is no such source or split, it refuses an option, or its data is damaged.
    """
    found = find_source(section, where)
    check_split(found, section.get("split"), f"{where}.split: ")
    source: Source = names.call(found, section, where)
    return source


def check_split(source: type, split: str | None, where: str = "") -> None:
    """A source that lists its splits must have this one.

    Raises:
        InputError: it has not, with the nearest name.
    """
    offered = getattr(source, "splits", ())
    if offered and split not in offered:
        near = names.nearest(str(split), offered)
        raise InputError(f"{where}There is no split '{split}'.{near}")
