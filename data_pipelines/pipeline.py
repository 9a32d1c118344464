"""From a raw record to an example with static shapes: each modality through its transforms."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.example_checks import difference, empty, finite
from data_pipelines.faults import Fault, blamed_on_record, fault_of, size

TRIED = 64  # records, before none is believed to be fit for use

T = TypeVar("T")
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
            record lacks and of all others must look like; without it every record has all
            modalities, and the rest are labels.
        record_bytes: the largest raw record that is used; None: any.
    """

    transforms: Mapping[str, Sequence[Transform]]
    source: Source | None = None
    record_bytes: int | None = None
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
            Fault: the record cannot be used: a field is missing or empty, a label is no integer, a
                decoder or transform fails for it, what comes out is not finite, all masked, or of
                another shape or type than in other records.
            InputError: a transform refuses its options.
        """
        if self.record_bytes is not None and (found := size(record)) > self.record_bytes:
            raise Fault("too_large", f"{found} bytes, where {self.record_bytes} are the limit")
        with blamed_on_record():
            name = record["id"]
        example: dict[str, Any] = {"id": name, "index": np.int32(index), "present": {}}
        for modality in self.transforms:
            value = record.get(modality)
            example["present"][modality] = np.bool_(value is not None)
            try:
                if value is None:
                    example[modality] = self._blank(modality, train)
                else:
                    example[modality] = self._whole(modality, value, seed=seed, train=train)
            except InputError as error:
                raise InputError(f"Record '{name}', {modality}: {error}") from error
            except Exception as error:
                if fault := fault_of(error):
                    raise Fault(fault.kind, f"{modality}: {fault.reason}") from error
                error.add_note(f"This was record '{name}', its {modality}.")
                raise
        return self._labels(record) | example

    def apply(self, modality: str, value: Any, *, seed: Sequence[int], train: bool) -> Any:
        """One raw value of one modality through its transforms."""
        rng = np.random.default_rng([*seed, zlib.crc32(modality.encode())])
        for transform in self.transforms[modality]:
            value = transform(value, rng=rng, train=train)
        return value

    def _whole(self, modality: str, value: Any, *, seed: Sequence[int], train: bool) -> Any:
        """`apply`, with nothing empty going in and nothing unusable coming out."""
        if empty(value):
            raise Fault("empty", "there is nothing in it")
        made = self.apply(modality, value, seed=seed, train=train)
        if isinstance(made, Mapping) and "mask" in made and not np.any(made["mask"]):
            raise Fault("empty", "its transforms leave nothing of it")
        if isinstance(made, Mapping) and empty(made.get("raw", True)):
            raise Fault("empty", "its transforms leave nothing of it")
        if not finite(made):
            raise Fault("not_finite", "there are NaN or infinite numbers in it")
        blank = self._layout(modality, train)
        if odd := blank is not None and difference(made, blank):
            raise Fault("wrong_shape", odd)
        return made

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
                raise Fault(
                    "bad_label",
                    f"its label '{name}' is {found}, not a whole number of 32 bits",
                )
        return labels

    def _blank(self, modality: str, train: bool) -> Any:
        """Zeros in the shapes of other records' `modality`."""
        blank = self._layout(modality, train)
        if blank is None:
            raise InputError(f"no record seems to have a '{modality}'; is that its name?")
        return blank

    def _layout(self, modality: str, train: bool) -> Any:
        """Zeros in the shapes of the first record that has the modality, fit for use, among 10,000
        or more evenly spread over the source; None if none has it, or there is no source.
        """
        if (modality, train) not in self._blanks:
            self._blanks[modality, train] = self._search(modality, train)
        return self._blanks[modality, train]

    def _search(self, modality: str, train: bool) -> Any:
        source = self.source or ()
        fault, unfit = None, 0
        for i in range(0, len(source), len(source) // 10_000 or 1):
            try:
                with blamed_on_record():
                    value = source[i].get(modality)
                    if not (value is None or empty(value)):
                        return _zeros(self.apply(modality, value, seed=(0,), train=train))
            except Fault as error:
                fault, unfit = error, unfit + 1
                if unfit == TRIED:
                    break
        if fault is not None:
            raise InputError(f"no record seems fit for use: {fault}") from fault
        return None


def first_usable(source: Source, use: Callable[[dict[str, Any], int], T]) -> T:
    """`use(record, its number)` of the first record of a source with which it works.

    Raises:
        InputError: it works with none of the first 64.
    """
    reason, cause = "there are none", None
    for i in range(min(len(source), TRIED)):
        try:
            return use(read(source, i), i)
        except Fault as fault:
            reason, cause = str(fault), fault
    raise InputError(f"None of the first records can be used; the last: {reason}.") from cause


def read(source: Source, index: int) -> dict[str, Any]:
    """`source[index]`.

    Raises:
        Fault: the record cannot be read.
    """
    with blamed_on_record():
        return source[index]


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
