"""What the source stores, record by record."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault, Reject
from mmcl import experiment
from mmcl.evals.embedded import Embedded
from mmcl.evals.raw_values import raw_values

MODEL: Any = SimpleNamespace(settings="those of the model")


class Stored(list):
    """A source that looks no further than it has to, and cannot read 'broken' records."""

    label_names: dict[str, list[str]] = {}
    entries: tuple[str, ...] = ()

    def only(self, *entries: str) -> "Stored":
        narrow = Stored(self)
        narrow.entries = entries
        return narrow

    def __getitem__(self, i: Any) -> Any:
        assert self.entries == ("text",)
        if "broken" in (record := super().__getitem__(i)):
            raise Fault("truncated", "half of it is gone")
        return record


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Any:
    def stored(records: list[dict[str, Any]], ids: list[str], rejected: list[int]) -> list[Any]:
        def open_source(settings: Any, split: str) -> Stored:
            assert (settings, split) == ("those of the model", "val")
            return Stored(records)

        monkeypatch.setattr(experiment, "open_source", open_source)
        embedded = Embedded(
            split="val",
            z={},
            labels={"concept": np.arange(len(ids))},
            shown={},
            ids=ids,
            label_names={},
            rejected=[Reject(None, i, 0, i, "empty", "nothing in it") for i in rejected],
        )
        return raw_values(embedded, MODEL, "text")

    return stored


RECORDS = [{"id": "a", "text": {"en": ["cat"]}}, {"id": "b", "broken": 1}, {"id": "c", "x": 1}]


def test_in_order_without_the_rejected(stored: Any) -> None:
    assert stored(RECORDS, ["a", "c"], [1]) == [{"en": ["cat"]}, None]


@pytest.mark.parametrize(
    "ids, rejected, message",
    [
        (["a", "b"], [2], "'b' can no longer be read: truncated: half of it is gone"),
        (["a", "d"], [1], "record 2 was 'd' when embedded, and is 'c'"),
        (["a"], [], "'val' has changed since it was embedded"),
    ],
)
def test_what_is_wrong_is_said(
    stored: Any, ids: list[str], rejected: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stored(RECORDS, ids, rejected)
