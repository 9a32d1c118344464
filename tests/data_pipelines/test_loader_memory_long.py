"""Loading on and on takes no more memory: 100,000 pictures with their captions, from tars."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PICTURES, SHARDS, READ = 2_000, 4, 100_000
HERE = Path(__file__).parents[2]
LOAD = """
import functools, json, sys
from data_pipelines.loader import train_batches
from data_pipelines.open_source import open_source
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline
from data_pipelines.transforms import crop, image, text

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

stop = int(sys.argv[2]) // 100 + 200
source = open_source(json.loads(sys.argv[1]))
template = functools.partial(text.template, templates=["a {}", "the {}"])
cut = functools.partial(crop.random_resized, size=16)
pictures = [cut, functools.partial(image.resize, size=16)]
pipeline = Pipeline({"image": pictures, "text": [template]}, source)
order = Order(len(source), 0)
batches = train_batches(source, pipeline, order, batch_size=100, start=0, stop=stop)
for _ in range(200):
    next(batches)
before, seen = resident(), 0
for batch in batches:
    seen += len(batch["image"]["value"])
print(seen, resident() - before)
"""


@pytest.mark.long
def test_memory_is_flat(tmp_path):
    chance = np.random.default_rng(0)
    for shard in range(SHARDS):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(shard, PICTURES, SHARDS):
                jpeg = io.BytesIO()
                Image.fromarray(chance.integers(0, 256, (24, 24, 3), np.uint8)).save(jpeg, "jpeg")
                for field, data in (("jpg", jpeg.getvalue()), ("txt", b"thing")):
                    info = tarfile.TarInfo(f"{i}.{field}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    section = {"name": "webdataset", "files": f"{tmp_path}/*.tar"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(section), str(READ)],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, "MMCL_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    seen, grown = map(int, done.stdout.split())
    assert seen == READ
    assert grown < 16_000_000  # 160 bytes a record
