"""Several sources as one: their records one after the other, drawn by weights in training.

Its records are numbered through, source after source in alphabetical order of their names, and
their ids begin with the name of their source: `emoji/1f600-twemoji`. Each has one more label,
`source`. How often a source stands in a batch is `mixed_order.py`'s to say.
"""

import bisect
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from data_pipelines import open_source as sections
from data_pipelines.errors import InputError
from data_pipelines.mixed_order import check_weights
from data_pipelines.names import nearest
from data_pipelines.pipeline import Source as OneSource


class Source:
    """A mixture; it has to be the outermost of sources that are made of sources.

    Args:
      sources: name -> section of a source. The names are yours; no "/" or "." in them.
      weights: name -> how often it stands in training, relative to the others; None: as many times
        as it has records. A stage may give others, and `config.mixing` may change them on the way.
      split: None: each source as its section says; a source's name: that one alone; "NAME.SPLIT":
        this split of that one; any other: this split of all of them.
      labels: those to keep; None: those that all sources have. The same number of one label has to
        mean the same in every source.

    Raises:
      InputError: a source or weight is wrong, or a label has other names in another source.
    """

    def __init__(
        self,
        *,
        sources: dict[str, dict[str, Any]],
        weights: dict[str, float] | None = None,
        split: str | None = None,
        labels: Sequence[str] | None = None,
    ):
        if not sources or any(set("/.") & set(name) or not name for name in sources):
            raise InputError("mixture: sources need names without '/' and '.', and one at least.")
        if weights is not None:
            check_weights(weights, sources)
        opened: dict[str, OneSource] = {}
        for name, of in _chosen(split, sources).items():
            section = sources[name] if of is None else {**sources[name], "split": of}
            opened[name] = sections.open_source(section, f"mixture: sources.{name}")
        self._sources = list(opened.values())
        self._ends = list(accumulate(map(len, self._sources)))
        self.names: list[str] = list(opened)
        self.records: dict[str, int] = {name: len(source) for name, source in opened.items()}
        self.weights: dict[str, float] = {
            name: (self.records if weights is None else weights)[name] for name in opened
        }
        self.splits: list[str] = [  # what can be told of what `split` may be
            f"{name}.{of}" if of else name
            for name, source in opened.items()
            for of in getattr(source, "splits", ()) or ("",)
        ]
        kept = _labels(opened, labels)
        self.label_names: dict[str, list[str]] = {**kept, "source": sorted(sources)}
        self._number = {name: i for i, name in enumerate(self.label_names["source"])}
        self._dropped = {name for one in self._sources for name in one.label_names} - kept.keys()
        folders = {getattr(source, "folder", None) for source in self._sources} - {None}
        self.folder: str | os.PathLike | None = folders.pop() if len(folders) == 1 else None

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        at = bisect.bisect_right(self._ends, index)
        source, name = self._sources[at], self.names[at]
        record = source[index - self._ends[at] + len(source)]
        kept = {key: value for key, value in record.items() if key not in self._dropped}
        return {**kept, "id": f"{name}/{record['id']}", "source": self._number[name]}

    def name_of(self, index: int) -> str:
        """The source that a record is from."""
        return self.names[bisect.bisect_right(self._ends, index)]


def _chosen(split: str | None, sources: Mapping[str, Any]) -> dict[str, str | None]:
    """Which sources a split of the mixture is made of, and which split of each (None: its own)."""
    name, _, rest = (split or "").partition(".")
    if name in sources:
        return {name: rest or None}
    return dict.fromkeys(sorted(sources), split)


def _labels(opened: Mapping[str, OneSource], wanted: Sequence[str] | None) -> dict[str, list[str]]:
    """The names of the labels that are kept."""
    first, *others = opened.values()
    kept = wanted
    if kept is None:
        kept = [name for name in first.label_names if all(name in o.label_names for o in others)]
    for label in kept:
        for name, source in opened.items():
            if label not in source.label_names:
                near = nearest(label, source.label_names)
                raise InputError(f"mixture: labels: the source '{name}' has no '{label}'.{near}")
            names = source.label_names[label]
            if names != first.label_names[label]:
                raise InputError(
                    f"mixture: the label '{label}' has other names in '{name}' than in "
                    f"'{next(iter(opened))}'; say with labels=[...] which to keep."
                )
            if not names and wanted is None and others:
                raise InputError(
                    f"mixture: the label '{label}' has no names, so nobody can tell whether its "
                    "numbers mean the same in all sources; if they do, list it in labels=[...]."
                )
    return {label: first.label_names[label] for label in kept}
