from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data_pipelines import deb, npm
from mmcl.cli import cli
from mmcl.command import STOPPED

OWN = """
from data_pipelines.cache import prepared


def prepare(cache=None):
    def build(folder):
        (folder / "ATTRIBUTION.md").write_text("mine")
        return {"counts": {"train": {"records": 1234}, "val": 5}}
    return prepared("own-v1", build, cache)
"""


def get(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", "get", *words], prog_name="mmcl")


def refused(*words: str) -> str:
    result = get(*words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = get("own_data", "--cache", str(tmp_path / "cache"))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "cache" / "own-v1"
    assert result.stdout.splitlines() == [
        "train              1,234 records",
        "val                    5 records",
        f"Data: {folder}",
        f"Licences: {folder}/ATTRIBUTION.md",
    ]
    assert get("own_data", "--cache", str(tmp_path / "cache")).stdout == result.stdout


def test_a_name_may_be_written_with_a_hyphen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused("emoji-full", "--cache", str(tmp_path)) == refused(
        "emoji_full", "--cache", str(tmp_path)
    )


@pytest.mark.parametrize(("name", "tool"), [("emoji-full", "npm is"), ("stamps", "apt-get and")])
def test_a_missing_tool_is_one_line(
    name: str, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"{tool} " in refused(name, "--cache", str(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("emoji-ful", "Did you mean 'emoji_full'?"), ("stamps_build", "Did you mean 'stamps'?"),
     ("zzz", "There is: emoji, emoji_full, molecules, stamps.")],
)  # fmt: skip
def test_what_cannot_be_got(name: str, suggestion: str) -> None:
    assert refused(name).startswith("mmcl: NAME: there is no ")
    assert refused(name).endswith(suggestion)


def test_help_names_what_can_be_got() -> None:
    text = CliRunner().invoke(cli, ["data", "get", "--help"]).stdout
    for name in ("emoji", "emoji-full", "molecules", "stamps"):
        assert f"\n  {name} " in text


@pytest.mark.parametrize("tool", [(npm, "install", "emoji-full"), (deb, "unpack", "stamps")])
def test_ctrl_c_leaves_nothing(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, name = tool

    def stop(what: object, folder: Path) -> None:
        (folder / "half").write_text("of a download")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, stop)
    result = get(name, "--cache", str(tmp_path))
    assert (result.exit_code, result.stdout) == (STOPPED, "")
    assert result.stderr.endswith("mmcl: Stopped; nothing was kept.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(package: str, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deb, "unpack", full)
    line = refused("stamps", "--cache", str(tmp_path))
    assert "No space left on device" in line and "set MMCL_CACHE" in line
