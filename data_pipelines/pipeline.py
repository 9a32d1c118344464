"""From a raw record to an example with static shapes: each modality through its transforms."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Transform = Callable[..., Any]  # f(value, *, rng, train) -> value


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """`transforms[modality]` are applied in turn to `record[modality]`."""

    transforms: Mapping[str, Sequence[Transform]]

    def __call__(
        self, record: Mapping[str, Any], index: int, *, seed: Sequence[int], train: bool
    ) -> dict[str, Any]:
        """One example: modality -> {value, mask, ...}, `present`, `id`, `index`, labels.

        Args:
            record: what a source gives: `id`, one entry a modality, integer labels.
            index: its number in the source.
            seed: numbers that key every random choice for this record; each modality draws its own.
            train: whether random transforms act.
        """
        example: dict[str, Any] = {"id": record["id"], "index": np.int32(index), "present": {}}
        for modality in self.transforms:
            example[modality] = self.apply(modality, record[modality], seed=seed, train=train)
            example["present"][modality] = np.bool_(True)
        for name, value in record.items():
            if name not in example:
                example[name] = np.int32(value)
        return example

    def apply(self, modality: str, value: Any, *, seed: Sequence[int], train: bool) -> Any:
        """One raw value of one modality through its transforms."""
        rng = np.random.default_rng([*seed, zlib.crc32(modality.encode())])
        for transform in self.transforms[modality]:
            value = transform(value, rng=rng, train=train)
        return value


def stack(examples: Sequence[Any]) -> Any:
    """Examples -> one batch of the same structure; strings become arrays of objects."""
    first = examples[0]
    if isinstance(first, Mapping):
        return {key: stack([example[key] for example in examples]) for key in first}
    if isinstance(first, str):
        return np.array(examples, dtype=object)
    return np.stack(examples)
