"""A look at every record of a source, at no more of it than is needed."""

from collections.abc import Iterator
from typing import Any

from data_pipelines.faults import Fault
from data_pipelines.pipeline import Source
from data_pipelines.progress import Bar


def only(source: Source, *entries: str) -> Source:
    """The source with these entries alone, where it can tell them apart; else as it is."""
    narrow = getattr(source, "only", None)
    return source if narrow is None else narrow(*entries)


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
