"""evals.json: what is written is read again, and nothing of a damaged one."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmcl.evals import judged
from mmcl.evals.figure import Figures, PerItem, intervals

FIGURES: Figures = {
    "eval/val/recall@1": PerItem(np.array([1.0, 0, 0, 1, 1, 0, 1, 0])),
    "eval/val/chance@1": 0.125,
    "eval/val/none": PerItem(np.empty(0)),
}


def test_numbers_and_the_ends_of_their_intervals(tmp_path: Path) -> None:
    told = judged.told(FIGURES)
    low, high = intervals(FIGURES)["eval/val/recall@1"]
    assert told["eval/val/recall@1"] == 0.5 and told["eval/val/chance@1"] == 0.125
    assert np.isnan(told["eval/val/none"])
    assert told["intervals"] == {"eval/val/recall@1": [low, high]} and low < 0.5 < high


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / judged.FILE).write_text("of an evaluation before")
    judged.write(tmp_path, 30, FIGURES)
    assert [file.name for file in tmp_path.iterdir()] == ["evals.json"]
    found = json.loads((tmp_path / "evals.json").read_text())
    assert found["step"] == 30 and found["eval/val/recall@1"] == 0.5
    low, high = intervals(FIGURES)["eval/val/recall@1"]
    assert judged.spread(tmp_path) == {"eval/val/recall@1": [low, high]}


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "{}", '{"intervals": 3}', '{"intervals": {"a": [1]}}', "\x00"]
)
def test_of_no_such_file_nothing_is_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / judged.FILE).write_text(text)
    assert judged.spread(tmp_path) == {}


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged.write(tmp_path, 10, FIGURES)
    before = (tmp_path / judged.FILE).read_text()

    def full(self: Path, *args: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        judged.write(tmp_path, 20, FIGURES)
    assert (tmp_path / judged.FILE).read_text() == before
