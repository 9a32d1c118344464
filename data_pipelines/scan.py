"""A look at every record of a source, at no more of it than is needed."""

from collections.abc import Iterator
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.pipeline import Source
from data_pipelines.progress import Bar


def only(source: Source, *entries: str) -> Source:
    """The source with these entries alone, where it can tell them apart; else as it is."""
    narrow = getattr(source, "only", None)
    return source if narrow is None else narrow(*entries)


def check_id(source: Source, field: str | None) -> None:
    """Some of the first records should have the field that is said to be the id.

    Raises:
        InputError: none has.
    """
    if field is None:
        return
    view = only(source)
    for index in range(min(len(source), 10)):
        try:
            view[index]
        except Fault as fault:
            if fault.kind == "missing_field":
                continue
        return
    raise InputError(f"id: there is no '{field}' in the first records.")


def scanned(source: Source, *entries: str) -> Iterator[dict[str, Any] | None]:
    """`id` and these entries of every record in order; None for a record that cannot be used."""
    view = only(source, "id", *entries)
    with Bar("looking through the records", len(source)) as bar:
        for index in range(len(source)):
            try:
                yield view[index]
            except Fault:
                yield None
            bar.advance(1)
