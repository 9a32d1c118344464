"""The table of claims: what is written, what is replaced, which side of 0 counts."""

from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from mmcl.compare import paired
from mmcl.results import record, rows

A, B = "experiments/quickstart.py", "experiments/siglip_emoji.py"
FOUND = [
    paired("eval/val/recall@1", [0.1, 0.2, 0.15], [0.3, 0.41, 0.35]),
    paired("eval/val/gap", [0.5, 0.6, 0.55], [0.3, 0.41, 0.35]),
    paired("eval/val/other", [0.5, 0.6, 0.55], [0.5, 0.61, 0.53]),
]


@pytest.mark.parametrize(
    "claim, shown",
    [
        ("eval/val/recall@1", "yes"),
        ("-eval/val/recall@1", "no"),
        ("-eval/val/gap", "yes"),
        ("eval/val/gap", "no"),
        ("eval/val/other", "no"),
        ("-eval/val/other", "no"),
    ],
)
def test_a_claim_is_shown_where_the_interval_lies_on_its_side(
    tmp_path: Path, claim: str, shown: str
) -> None:
    row = record(tmp_path / "R.md", A, B, [("steps", "9")], FOUND, claim)
    assert row.shown == shown and rows(tmp_path / "R.md") == [row]
    assert row.claim.endswith("lower" if claim.startswith("-") else "higher")
    assert row.command == f"`mmcl compare {A} {B} --seeds 3 --claim={claim} --config.steps=9`"


def test_the_numbers_are_those_of_the_comparison(tmp_path: Path) -> None:
    row = record(tmp_path / "R.md", A, B, [], FOUND, "eval/val/recall@1")
    assert (row.its, row.ours) == ("0.1500 ± 0.0500", "0.3533 ± 0.0551")
    assert row.difference == "+0.2033"
    low, high = (float(end) for end in row.interval.split(" to "))
    assert low == pytest.approx(FOUND[0].low, abs=1e-4)
    assert high == pytest.approx(FOUND[0].high, abs=1e-4)


def test_large_numbers_have_no_decimals(tmp_path: Path) -> None:
    found = [paired("m", [5000.4, 5100.4], [1000.2, 1002.2])]
    row = record(tmp_path / "R.md", A, B, [], found, "-m")
    assert (row.its, row.difference) == ("5,050 ± 70.7107", "-4,049")


def test_a_row_replaces_its_like_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "R.md"
    first = record(file, A, B, [], FOUND, "eval/val/recall@1")
    second = record(file, A, B, [], FOUND, "-eval/val/gap")
    other = record(file, B, A, [], FOUND, "-eval/val/gap")
    assert set(rows(file)) == {first, second, other}
    better = [paired("eval/val/gap", [0.5, 0.6, 0.55], [0.1, 0.2, 0.1])]
    third = record(file, A, B, [], better, "-eval/val/gap")
    assert third != second and set(rows(file)) == {first, third, other}
    assert file.read_text().count("| Method |") == 1


@pytest.mark.parametrize(
    "found, claim, line",
    [
        (FOUND, "eval/val/recall@2", "no metric 'eval/val/recall@2'"),
        ([paired("m", [1.0], [2.0])], "m", "one seed has no interval"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, found: list, claim: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        record(tmp_path / "R.md", A, B, [], found, claim)
    assert not (tmp_path / "R.md").exists()
