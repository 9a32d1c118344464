"""The live line fits a terminal of 80 columns; a log file gets whole lines."""

import io
import re

import pytest
from rich.console import Console

from mmcl.live import LiveLine

ROW = {
    "step": 99_000,
    "train/loss": 10.1234,
    "train/logit_scale": 100.0,
    "train/examples_per_s": 123_456.7,
    "eval/unseen_artist/image_to_text/recall@1": 0.111,
    "eval/unseen_artist/image_to_text/recall@10": 0.25,
    "eval/unseen_artist/text_to_image/recall@10": 0.5,
    "eval/unseen_concept/text_to_image/recall@10": 0.75,
}


def shown(row: dict[str, float], steps: int, terminal: bool, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    with LiveLine(console, steps, 0) as live:
        live.step(int(row["step"]))
        live.row(row)
    written = console.file.getvalue().replace("\r", "\n")  # type: ignore[attr-defined]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "steps, row",
    [
        (100_000, ROW),
        (800, ROW | {"step": 10, "train/loss": 3.4, "train/examples_per_s": 92.0}),
    ],
)
def test_all_numbers_are_seen_on_80_columns(steps: int, row: dict[str, float]) -> None:
    line = shown(row, steps, terminal=True)[-1]
    assert f"step {row['step']}/{steps} " in line
    assert f"loss {row['train/loss']:.3f}  scale 100.0" in line
    assert f"  {row['train/examples_per_s']:,.0f} ex/s ETA --:--" in line
    assert "…" not in line and len(line) <= 77  # room for the ^C of a terminal


def test_it_says_that_it_compiles_before_the_first_step() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with LiveLine(console, 10, 0):
        pass
    assert "compiling ..." in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_evaluations_stay_as_a_line_for_each_split(terminal: bool) -> None:
    lines = shown(ROW, 100_000, terminal)
    said = "  step 99000  unseen_artist: recall@10 image_to_text 0.250, text_to_image 0.500"
    assert said in lines
    assert "  step 99000  unseen_concept: recall@10 text_to_image 0.750" in lines


def test_a_log_file_gets_one_line_a_row() -> None:
    lines = shown(ROW, 100_000, terminal=False, width=160)
    assert lines[0].startswith("step 99000/100000  loss 10.123  scale 100.0  123,457 ex/s  ETA ")
    assert len(lines) == 3


def test_an_objective_without_a_temperature() -> None:
    row = {key: value for key, value in ROW.items() if key != "train/logit_scale"}
    assert "scale" not in "".join(shown(row, 100_000, terminal=True))
