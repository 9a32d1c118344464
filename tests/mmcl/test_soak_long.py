"""Training on and on while everything around it fails now and then.

    MMCL_SOAK_S=3600 pytest -m long -s tests/mmcl/test_soak_long.py

soaks for an hour, in the place of three minutes, and prints what it counted.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from data_pipelines.order import Order
from mmcl import json_lines, metrics_log

RECORDS, BATCH, CORRUPT = 2_000, 16, 20  # 1 %
OWN = f'''
"""Records from a slow disk; and a table of how often each record was seen."""

import dataclasses
import random
import time

import jax.numpy as jnp
from data_pipelines.sources import table
from mmcl import checksums
from mmcl.objectives import queue


class Source(table.Source):
    def __getitem__(self, index):
        if random.random() < 0.01:
            time.sleep(0.05)
        return super().__getitem__(index)


@dataclasses.dataclass(frozen=True)
class Objective(queue.Objective):
    def init_state(self, key):
        return {{"queue": super().init_state(key), "seen": jnp.zeros({RECORDS}, jnp.int32)}}

    def __call__(self, params, state, embeddings, batch, key):
        result = super().__call__(params, state["queue"], embeddings, batch, key)
        seen = state["seen"].at[batch["index"]].add(1)
        return result._replace(state={{"queue": result.state, "seen": seen}})


def slowly(*args, write=checksums.write):
    """The end of every save."""
    time.sleep(0.5)
    write(*args)


checksums.write = slowly
'''


class Life(NamedTuple):
    """Of one process that trained, from its first row to the SIGTERM that ended it."""

    seconds: float
    kills: int  # of workers
    resident_mb: list[float]  # once a second from the twentieth on


@pytest.mark.long
def test_nothing_is_lost_or_doubled(
    tmp_path: Path,
    experiment_file: Callable[..., Path],
    children: Callable[[int], list[int]],
    tiny_config: dict[str, Any],
) -> None:
    """1 % corrupt records, workers that are killed, SIGTERM every few minutes, a slow disk."""
    seconds = float(os.environ.get("MMCL_SOAK_S", "180"))
    corrupt = set(pictures(tmp_path / "pictures").tolist())
    (tmp_path / "own_soak.py").write_text(OWN)
    experiment, folder = experiment_file(soaking(tmp_path, tiny_config)), tmp_path / "run"
    rng, lives, end = np.random.default_rng(0), list[Life](), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 30:
        seconds_of_it = min(left, max(60, seconds / 12))
        lives.append(lived(experiment, folder, seconds_of_it, rng, children))
        assert len(list((folder / "checkpoints").iterdir())) <= 3, "files accumulate"

    steps = [row["step"] for row in metrics_log.read(folder)]
    last = max(int(one.name) for one in (folder / "checkpoints").iterdir())
    assert steps == list(range(10, last + 1, 10)), "rows are lost or doubled"
    order = Order(RECORDS, 0)
    came = [order(position)[1] for position in range(last * BATCH)]
    expected = np.bincount(came, minlength=RECORDS)
    with ocp.StandardCheckpointer() as reader:
        at = folder / "checkpoints" / str(last) / "state"
        seen = np.asarray(reader.restore(at.absolute())["objective"]["seen"])
    bad = {position: one for position, one in enumerate(came) if one in corrupt}
    rejected = json_lines.read(folder / "rejected.jsonl")
    assert {row["position"]: row["index"] for row in rejected} == bad and len(rejected) == len(bad)
    assert {row["kind"] for row in rejected} == {"truncated_image"}
    assert seen.sum() == last * BATCH
    sound = np.setdiff1d(np.arange(RECORDS), list(corrupt))
    assert (seen[list(corrupt)] == 0).all()
    more = seen[sound] - expected[sound]  # those that stood in for others
    assert (more >= 0).all() and more.sum() == len(bad)

    grown = [life.resident_mb[-1] - life.resident_mb[0] for life in lives]
    told = {
        "seconds": round(sum(life.seconds for life in lives)),
        "steps": last,
        "records": last * BATCH,
        "rejected": len(bad),
        "workers killed": sum(life.kills for life in lives),
        "SIGTERMs": len(lives),
        "MB at 20 s": [round(life.resident_mb[0]) for life in lives],
        "MB grown after": [round(one, 1) for one in grown],
    }
    print(json.dumps(told))
    assert sum(life.kills for life in lives) >= len(lives)
    assert max(grown) < 40, told  # of some 900, allocators' own


def lived(
    experiment: Path,
    folder: Path,
    seconds: float,
    rng: np.random.Generator,
    children: Callable[[int], list[int]],
) -> Life:
    """Train for so long from the first row on, a worker being killed every ten seconds or so; then
    SIGTERM.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "import mmcl.cli; mmcl.cli.main()", "train", str(experiment)]
        + ["--workdir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    before = newest_step(folder)
    while newest_step(folder) == before:  # it starts and compiles, however long that takes here
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    began, kills, resident = time.monotonic(), 0, []
    next_kill, next_step = 20.0, 0
    while (age := time.monotonic() - began) < seconds:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(1)
        if age >= 20:
            resident.append(resident_mb(process.pid))
        workers = children(process.pid)
        due = next_kill <= age < seconds - 5  # the last is told of, too
        if due and len(workers) == 2 and newest_step(folder) >= next_step:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            kills, next_kill = kills + 1, age + rng.uniform(8, 15)
            next_step = newest_step(folder) + 50  # so that the new one has given batches
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    told = errors.splitlines()
    assert len(told) == kills and all("it is started again" in line for line in told), errors
    return Life(age, kills, resident)


def newest_step(folder: Path) -> int:
    """That metrics.jsonl has a row of."""
    return max((row["step"] for row in metrics_log.read(folder)), default=0)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def pictures(folder: Path) -> np.ndarray:
    """Small JPEGs with captions, some cut short; the numbers of those."""
    rng = np.random.default_rng(0)
    corrupt = rng.choice(RECORDS, CORRUPT, replace=False)
    folder.mkdir()
    with (folder / "all.jsonl").open("w") as table:
        for i in range(RECORDS):
            colour = rng.integers(0, 256, (6, 6, 3), np.uint8)
            file = folder / f"{i}.jpg"
            Image.fromarray(colour).resize((48, 48)).save(file)
            if i in corrupt:
                content = file.read_bytes()
                file.write_bytes(content[: len(content) * 2 // 3])
            table.write(json.dumps({"id": i, "image": file.name, "text": f"thing {i}"}) + "\n")
    return corrupt


def soaking(folder: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    source = {"files": str(folder / "pictures" / "all.jsonl"), "paths": ["image"]}
    config = tiny_config | {
        "steps": 10_000_000,
        "batch_size": BATCH,
        "source": {"name": "own_soak.Source", **source},
        "transforms": {
            "image": [
                {"name": "crop.random_resized", "size": 16},
                {"name": "image.resize", "size": 16},
            ],
            "text": [{"name": "tokens.utf8", "vocab_size": 4096, "length": 8}],
        },
        "objective": {"name": "own_soak", "length": 64},
        "schedule": {"name": "warmup_cosine", "peak": 1e-3, "warmup": 2},
        "faults": {"share": 0.05},
        "eval": {"splits": []},
        "checkpoint": {"every": 200, "keep": 2},
        "log_every": 10,
        "workers": 2,
        "threads": 1,
    }
    return config
