"""Whatever happens to a file of a checkpoint is noticed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcl import checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in (("state/d/array", 3000), ("state/index", 40), ("data/metadata", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(rng.bytes(size))
    (tmp_path / "notes.json").write_text("{}")
    checksums.write(tmp_path)
    return tmp_path


def test_as_it_was_written(folder: Path) -> None:
    assert checksums.damage(folder) is None
    (folder / "notes.json").write_text("orbax changes its own notes")
    (folder / "state" / "more").write_text("what was not there is nobody's loss")
    assert checksums.damage(folder) is None


@pytest.mark.parametrize("name", ["state/d/array", "state/index", "data/metadata"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_any_flipped_bit_and_any_cut(folder: Path, name: str, data: st.DataObject) -> None:
    file = folder / name
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    for content, said in (
        (bytes(changed), "other bytes"),
        (whole[:at], f"has {at:,} bytes, not {len(whole):,}"),
    ):
        file.write_bytes(content)
        assert name in str(checksums.damage(folder))
        assert said in str(checksums.damage(folder))
    file.write_bytes(whole)
    assert checksums.damage(folder) is None


def test_what_is_gone(folder: Path) -> None:
    (folder / "state" / "index").unlink()
    assert checksums.damage(folder) == "state/index is missing"
    (folder / "checksums.json").unlink()
    assert checksums.damage(folder) == "checksums.json is missing"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"a": 1}', '{"a": [1]}', '{"a": [1, 2, 3]}', '{"a": ["x", ""]}']
    + [pytest.param("[" * 10**5, id="nested")],
)
def test_checksums_that_are_none(folder: Path, text: str) -> None:
    (folder / "checksums.json").write_text(text)
    assert checksums.damage(folder) == "checksums.json is damaged"


def test_names_do_not_lead_out_of_the_folder(folder: Path) -> None:
    (folder / "checksums.json").write_text('{"../secret": [1, ""], "/etc/passwd": [1, ""]}')
    assert checksums.damage(folder) == "../secret is missing"
