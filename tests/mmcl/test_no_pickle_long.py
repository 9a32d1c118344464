"""Nothing that is read is unpickled: no data of any format, no index, nothing of a run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AUDITED = """
import os
import sys


def refuse(event, args):
    if event == "pickle.find_class":
        print("unpickled:", *args, file=sys.stderr, flush=True)
        os._exit(99)


sys.addaudithook(refuse)
"""
COMMAND = AUDITED + "import mmcl.cli; mmcl.cli.main()"


def ended(program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", **more},
    )


@pytest.mark.long
def test_the_audit_sees_a_pickle() -> None:
    found = ended(AUDITED + "import pickle; pickle.loads(pickle.dumps(os.path.join))")
    assert found.returncode == 99 and "unpickled: posixpath join" in found.stderr


@pytest.mark.long
def test_a_run_and_going_on_with_it(
    tmp_path: Path, experiment_file: Callable[..., Path], tiny_config: dict[str, Any]
) -> None:
    words = ["train", str(experiment_file(tiny_config)), "--workdir", str(tmp_path / "run")]
    for again in (False, True):
        done = ended(COMMAND, *words, JAX_DISABLE_MOST_OPTIMIZATIONS="true")
        assert done.returncode == 0, done.stderr
        assert ("Going on from step 6 of 6." in done.stdout) == again
    done = ended(COMMAND, "eval", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", ["arrayrecord", "webdataset", "parquet", "jsonl", "csv"])
def test_data_of_every_format(
    tmp_path: Path, experiment_file: Callable[..., Path], tiny_config: dict[str, Any], name: str
) -> None:
    """Written, indexed, read, and read again by the index."""
    folder, cache = tmp_path / "data", {"MMCL_CACHE": str(tmp_path / "cache")}
    made_up = {"pictures": {"image": 16}, "texts": {"text": 3}, "records": 20}
    if name in ("jsonl", "csv"):  # which hold no bytes
        del made_up["pictures"]
        del tiny_config["transforms"]["image"], tiny_config["towers"]["image"]
    tiny_config["source"] = {"name": "synthetic", **made_up}
    words = ["data", "convert", str(experiment_file(tiny_config)), "--to", name]
    done = ended(COMMAND, *words, "--out", str(folder), **cache)
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        words = ["data", "inspect", str(folder), "--out", str(tmp_path / "page"), "--cards", "4"]
        done = ended(COMMAND, *words, **cache)
        assert done.returncode == 0, done.stderr
