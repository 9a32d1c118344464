"""From a raw record to an example with static shapes: each modality through its transforms."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data_pipelines.errors import InputError

Transform = Callable[..., Any]  # f(value, *, rng, train) -> value


class Source(Protocol):
    """Random access to raw records."""

    label_names: dict[str, list[str]]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """`transforms[modality]` are applied in turn to `record[modality]`.

    Attributes:
        transforms: modality -> functions `f(value, *, rng, train)`.
        source: says which entries of a record are labels, and what the modalities look like that a
            record lacks; without it every record has all modalities, and the rest are labels.
    """

    transforms: Mapping[str, Sequence[Transform]]
    source: Source | None = None
    _blanks: dict[tuple[str, bool], Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(
        self, record: Mapping[str, Any], index: int, *, seed: Sequence[int], train: bool
    ) -> dict[str, Any]:
        """One example: modality -> {value, mask, ...}, `present`, `id`, `index`, labels.

        A modality that the record lacks (no such key, or None) is not `present`, and zeros.

        Args:
            record: what a source gives: `id`, one entry a modality, integer labels.
            index: its number in the source.
            seed: numbers that key every random choice for this record; each modality draws its own.
            train: whether random transforms act.

        Raises:
            InputError: a label is no integer, or a transform refuses a value.
        """
        example: dict[str, Any] = {"id": record["id"], "index": np.int32(index), "present": {}}
        for modality in self.transforms:
            value = record.get(modality)
            example["present"][modality] = np.bool_(value is not None)
            try:
                if value is None:
                    example[modality] = self._blank(modality, train)
                else:
                    example[modality] = self.apply(modality, value, seed=seed, train=train)
            except InputError as error:
                raise InputError(f"Record '{record['id']}', {modality}: {error}") from error
            except Exception as error:
                error.add_note(f"This was record '{record['id']}', its {modality}.")
                raise
        return self._labels(record) | example

    def apply(self, modality: str, value: Any, *, seed: Sequence[int], train: bool) -> Any:
        """One raw value of one modality through its transforms."""
        rng = np.random.default_rng([*seed, zlib.crc32(modality.encode())])
        for transform in self.transforms[modality]:
            value = transform(value, rng=rng, train=train)
        return value

    def _labels(self, record: Mapping[str, Any]) -> dict[str, np.int32]:
        declared = record if self.source is None else self.source.label_names
        labels = {}
        for name in dict.fromkeys([*record, *declared]):
            value = record.get(name)
            if name == "id" or name in self.transforms:
                continue
            if isinstance(value, int | np.integer) and -(2**31) <= value < 2**31:
                labels[name] = np.int32(value)
            elif name in declared or isinstance(value, int | np.integer):
                found = " ".join(repr(value).split())[:40]
                raise InputError(
                    f"Record '{record['id']}': its label '{name}' is {found}; labels are whole "
                    "numbers of 32 bits."
                )
        return labels

    def _blank(self, modality: str, train: bool) -> Any:
        """Zeros in the shapes of the first record that has the modality, among 10,000 or more
        evenly spread over the source.
        """
        if (modality, train) not in self._blanks:
            source = self.source or ()
            numbers = range(0, len(source), len(source) // 10_000 or 1)
            values = (source[i].get(modality) for i in numbers)
            value = next((value for value in values if value is not None), None)
            if value is None:
                raise InputError(f"no record seems to have a '{modality}'; is that its name?")
            example = self.apply(modality, value, seed=(0,), train=train)
            self._blanks[modality, train] = _zeros(example)
        return self._blanks[modality, train]


def stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Examples -> one batch of the same structure; strings become arrays of objects.

    `raw`, which is only there to be shown, becomes one too where its shapes differ.

    Raises:
        InputError: anything else differs in shape or keys.
    """
    ids = [example.get("id", i) for i, example in enumerate(examples)]
    return _stack(examples, "example", ids)


def _stack(parts: Sequence[Any], name: str, ids: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, str):
        return np.array(parts, dtype=object)
    nested = isinstance(first, Mapping)
    layouts = [sorted(part) if nested else np.shape(part) for part in parts]
    odd = next((i for i, layout in enumerate(layouts) if layout != layouts[0]), None)
    if odd is not None and name.split(".")[-1] == "raw":
        shown = np.empty(len(parts), dtype=object)
        shown[:] = parts
        return shown
    if odd is not None:
        raise InputError(
            f"Examples of one batch should be alike, but '{name}' is {layouts[0]} in record "
            f"'{ids[0]}' and {layouts[odd]} in '{ids[odd]}'; let its last transform see to that."
        )
    if nested:
        return {key: _stack([part[key] for part in parts], f"{name}.{key}", ids) for key in first}
    return np.stack(parts)


def _zeros(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {key: _zeros(value) for key, value in part.items()}
    return "" if isinstance(part, str) else np.zeros_like(part)
