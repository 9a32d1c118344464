"""Reading on and on takes no more memory: 20,000 records in a shuffled order, for every format."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import records

RECORDS, SIZE, SHARDS = 4_000, 2_000, 4
HERE = Path(__file__).parents[3]
READ = """
import json, random, sys
from data_pipelines.open_source import open_source

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

source = open_source(json.loads(sys.argv[1]))
assert len(source) == int(sys.argv[2])
chance = random.Random(0)

def read(n):
    return sum(len(source[chance.randrange(len(source))]["image"]) for _ in range(n))

read(5_000)  # allocators have settled
before = resident()
assert read(20_000) == 20_000 * int(sys.argv[3])
print(resident() - before)
"""


def rows():
    chance = random.Random(0)
    for i in range(RECORDS):
        yield {"id": f"r{i}", "text": f"text {i}", "image": chance.randbytes(SIZE)}


def cut(listed):
    return [listed[k::SHARDS] for k in range(SHARDS)]


def webdataset(folder: Path, listed: list[dict]) -> dict:
    for k, part in enumerate(cut(listed)):
        with tarfile.open(folder / f"{k}.tar", "w") as tar:
            for row in part:
                for field, data in (("jpg", row["image"]), ("txt", row["text"].encode())):
                    info = tarfile.TarInfo(f"{row['id']}.{field}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return {"name": "webdataset", "files": f"{folder}/*.tar"}


def parquet(folder: Path, listed: list[dict]) -> dict:
    for k, part in enumerate(cut(listed)):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{k}.parquet", row_group_size=50)
    return {"name": "parquet", "files": f"{folder}/*.parquet", "memory": 1_000_000}


def arrayrecord(folder: Path, listed: list[dict]) -> dict:
    for k, part in enumerate(cut(listed)):
        records.write(folder / f"{k}.arrayrecord", part)
    return {"name": "arrayrecord", "files": f"{folder}/*.arrayrecord"}


def table(folder: Path, listed: list[dict]) -> dict:
    for row in listed:
        (folder / f"{row['id']}.jpg").write_bytes(row["image"])
    lines = (json.dumps({**row, "image": f"{row['id']}.jpg"}) + "\n" for row in listed)
    (folder / "all.jsonl").write_text("".join(lines))
    return {"name": "table", "files": f"{folder}/all.jsonl", "paths": ["image"]}


def joined(folder: Path, listed: list[dict]) -> dict:
    ids = [row["id"] for row in listed]
    np.savez(folder / "side.npz", id=ids, z=np.zeros((RECORDS, 8)), score=np.zeros(RECORDS))
    side = {"side": f"{folder}/side.npz"}
    kept = {"name": "kept", "source": arrayrecord(folder, listed), "field": "score", "top": 1.0}
    return {"name": "joined", "source": {**kept, **side}, **side}


@pytest.mark.long
@pytest.mark.parametrize("write", [webdataset, parquet, arrayrecord, table, joined])
def test_memory_is_flat(tmp_path, write):
    section = write(tmp_path, list(rows()))
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(section), str(RECORDS), str(SIZE)],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, "MMCL_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000_000  # of 40 MB: what is kept of each would show
