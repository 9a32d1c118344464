"""A section names a source: built in, or the user's own."""

from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.open_source import find_source, open_source

OWN = """
class Source:
    splits = ("train", "val")
    label_names = {}

    def __init__(self, *, split: str, size: int = 3):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        return {"id": str(index)}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_records.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_records"


def test_a_dotted_path_is_the_users_own(own: str) -> None:
    for name in (own, f"{own}.Source"):
        source = open_source({"name": name, "split": "val", "size": 2})
        assert len(source) == 2 and source[1] == {"id": "1"}


@pytest.mark.parametrize(
    "section, message",
    [
        ("own_records", "^data: 'own_records' should be a section with a 'name'.$"),
        ({"split": "train"}, "^data: .* should be a section with a 'name'.$"),
        ({"name": "own_recrds"}, "^data.name: there is no 'own_recrds'."),
        ({"name": "own_records", "split": "train", "sise": 2}, "^data.sise: .*'size'"),
        ({"name": "own_records", "split": "train", "size": "2"}, "^data.size: '2' should be"),
        (
            {"name": "own_records", "split": "vall"},
            "There is no split 'vall'. .*'val'",
        ),
    ],
)
def test_a_mistake_is_said_by_its_key(own: str, section: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(section, "data")


def test_finding_opens_nothing() -> None:
    assert find_source({"name": "molecules", "split": "train"}).__name__ == "Source"
