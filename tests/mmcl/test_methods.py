"""The catalogue of methods, and what files say of themselves."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import mmcl.methods
from mmcl import config as configs
from mmcl.cli import cli
from mmcl.methods import Header, catalogue, counts, header, methods

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_id_of_the_catalogue_is_listed_once_in_order() -> None:
    found = methods()
    assert [one.id for one in found] == [f"P{i:03d}" for i in range(1, 366)]
    assert sum(counts(found).values()) == 365
    scopes = [row["scope"] for row in catalogue()]
    assert [scopes.count(scope) for scope in ("core", "component", "linked")] == [148, 145, 72]
    assert all(row["name"] and row["title"] for row in catalogue())


def test_what_a_method_is_said_to_be_is_there() -> None:
    for one in methods():
        assert (one.status == "runs") == (one.experiment is not None)
        assert (one.status in ("absent", "linked")) == (one.module is None and not one.experiment)
        if one.experiment is not None:
            assert one.id in header(ROOT / one.experiment).papers
        if one.module is not None:
            assert one.id in header(ROOT / f"{one.module.replace('.', '/')}.py").papers
        if one.claim != "none":
            assert one.status == "runs"


def test_an_objective_is_named_before_other_parts_of_a_paper() -> None:
    (dcl,) = [one for one in methods() if one.id == "P038"]
    assert dcl.module == "mmcl.objectives.decoupled" and dcl.name == "DCL"


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("One.\n\nPaper:     P012, Some et al. (P099)\nClaim:  shown: more.", (("P012",), "shown")),
        ("One.\n\nPaper: P012, P013, Others\nClaim: not shown: x", (("P012", "P013"), "not_shown")),
        ("One.\n\nPaper:     Radford et al. 2021 (P012)\nClaim: more is shown: x", ((), "none")),
        ("One.\n\nSee:\n    Paper: P012, indented", ((), "none")),
        ("One, see Paper: P012", ((), "none")),
    ],
)
def test_header_lines(tmp_path: Path, text: str, wanted: tuple[tuple[str, ...], str]) -> None:
    file = tmp_path / "method.py"
    file.write_text(f'"""{text}\n"""\n')
    assert header(file) == Header(*wanted)


def test_statuses_and_claims_come_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.py").write_text('"""R.\n\nPaper: P001, P002, x\nClaim: not shown: y\n"""\n')
    monkeypatch.setattr(configs, "brought_along", lambda: [tmp_path / "run.py"])
    part = tmp_path / "part.py"
    part.write_text('"""P.\n\nPaper: P002, P003, x\n"""\n')
    monkeypatch.setattr(mmcl.methods, "_modules", lambda: [("own.part", part)])
    linked = next(row["id"] for row in catalogue() if row["scope"] == "linked")
    found = {one.id: one[3:] for one in methods()}
    assert found["P001"] == ("runs", None, "experiments/run.py", "not_shown")
    assert found["P002"] == ("runs", "own.part", "experiments/run.py", "not_shown")
    assert found["P003"] == ("component", "own.part", None, "none")
    assert found["P004"] == ("absent", None, None, "none")
    assert found[linked] == ("linked", None, None, "none")


def test_the_command_lists_them() -> None:
    result = CliRunner().invoke(cli, ["methods", "--json"], prog_name="mmcl")
    assert result.exit_code == 0
    told = json.loads(result.output)
    keys = ["id", "name", "title", "status", "module", "experiment", "claim"]
    assert len(told) == 365 and list(told[0]) == keys
    table = CliRunner().invoke(cli, ["methods"], prog_name="mmcl").output
    assert "P038" in table and "absent" in table.splitlines()[-1]
