"""Files that are damaged anywhere: an error that says so, or records; nothing else, and no more
memory than files of that size need.
"""

import importlib
import io
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.open_source import open_source
from data_pipelines.pipeline import read

FORMATS = ("arrayrecord", "csv", "jsonl", "parquet", "webdataset")
BOUND = 400e6  # bytes; each file has some 3,000


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def jpeg(i: int) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), (i, 20, 200)).save(made, "jpeg")
    return made.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Of each format the bytes of a file of four records, and the section that opens it."""
    made = {}
    for name in FORMATS:
        writer = importlib.import_module(f"data_pipelines.writers.{name}")
        file = tmp_path_factory.mktemp(name) / f"all.{writer.ENDING}"
        records: list[dict[str, Any]] = [
            {"id": f"r{i}", "text": f"thing {i}", "number": i, "image": jpeg(i)} for i in range(4)
        ]
        if name in ("csv", "jsonl"):
            for record in records:
                del record["image"]
        options = writer.write(file, records)
        made[name] = file.read_bytes(), {"name": writer.SOURCE, "files": file.name, **options}
    return made


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """What happens to a file: (how, where as a share of it, with what)."""
    how = st.sampled_from(["flip", "insert", "cut", "end", "swap"])
    where, what = st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)
    return draw(st.lists(st.tuples(how, where, what), min_size=1, max_size=4))


def damaged(content: bytes, how: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, what in how:
        at = int(share * len(content))
        rest = content[at + len(what) :]
        content = {
            "flip": content[:at] + what + rest,
            "insert": content[:at] + what + content[at:],
            "cut": content[:at] + rest,
            "end": content[:at],
            "swap": content[at:] + content[:at],
        }[kind]
    return content


def opened_and_read(section: dict[str, Any]) -> int:
    """How many records could be read."""
    try:
        source = open_source(section)
    except InputError as error:
        assert "\n" not in str(error)
        return 0
    good = 0
    for i in range(min(len(source), 100)):
        try:
            good += isinstance(read(source, i), dict)
        except Fault as fault:
            assert fault.kind and fault.reason
    return good


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60)
@given(how=damages())
def test_a_damaged_file(
    whole: dict[str, tuple[bytes, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    how: list[tuple[str, float, bytes]],
) -> None:
    content, section = whole[name]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / section["files"]).write_bytes(damaged(content, how))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    section = section | {"files": str(folder / section["files"])}
    assert opened_and_read(section) <= 100
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < BOUND


@pytest.mark.parametrize("name", FORMATS)
def test_the_whole_file_is_read(
    whole: dict[str, tuple[bytes, dict[str, Any]]], tmp_path: Path, name: str
) -> None:
    content, section = whole[name]
    (tmp_path / section["files"]).write_bytes(content)
    section = section | {"files": str(tmp_path / section["files"])}
    assert opened_and_read(section) == 4


@settings(max_examples=60)
@given(how=damages())
def test_damaged_arrays(
    tmp_path_factory: pytest.TempPathFactory, how: list[tuple[str, float, bytes]]
) -> None:
    made = io.BytesIO()
    np.savez_compressed(made, text=np.array(["a", "b"]), value=np.arange(6.0).reshape(2, 3))
    file = tmp_path_factory.mktemp("fuzz") / "all.npz"
    file.write_bytes(damaged(made.getvalue(), how))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert opened_and_read({"name": "arrays", "files": str(file)}) <= 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BOUND
