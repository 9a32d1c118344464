"""`mmcl inspect`: what a run would hold, and where, before it is paid for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mmcl.cli import cli
from mmcl.inspect_command import size


@pytest.fixture
def tiny(experiment_file: Callable[..., Path], tiny_config: dict[str, Any]) -> str:
    return str(experiment_file(tiny_config))


def test_json_has_every_array_and_the_batch(tiny: str) -> None:
    words = ["inspect", tiny, "--json", "--devices", "8", "--config.mesh.fsdp=4"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["mesh"] == {"data": 2, "fsdp": 4}
    assert found["config"]["mesh"] == {"fsdp": 4}
    state = {one["name"]: one for one in found["state"]}
    up = state["params/image/encoder/blocks_0/up/kernel"]
    assert up["shape"] == [16, 64] and up["axes"] == [["fsdp"], []]
    assert (up["nbytes"], up["device_nbytes"]) == (4096, 1024)
    moments = [name for name in state if name.endswith("/up/kernel")]
    assert len(moments) == 2 * 4  # params, two moments and an average, of two towers
    batch = {one["name"]: one for one in found["batch"]}
    assert batch["image/value"]["shape"] == [16, 16, 16, 3]
    assert batch["image/value"]["dtype"] == "uint8" and 0 < batch["image/value"]["mean"] < 255
    assert batch["text/mask"]["mean"] <= 1


def test_tables_say_what_is_held_whole(tiny: str) -> None:
    result = CliRunner().invoke(cli, ["inspect", tiny, "--devices", "4"])
    assert result.exit_code == 0, result.output
    assert '"embed_dim": 8' in result.stdout
    assert "Mesh: data 4" in result.stdout
    assert "params/text/embed/embedding" in result.stdout
    assert "the largest is params/text/embed/embedding, 256 KiB" in result.stdout.replace("\n", " ")
    assert "optimizer/" not in result.stdout
    more = CliRunner().invoke(cli, ["inspect", tiny, "--devices", "4", "--all"])
    assert "optimizer/" in more.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.mesh.fsdp=3"], "3 (data -1 × fsdp 3) does not divide 8 devices"),
        (["--config.mesh.fdsp=2"], "config.mesh.fdsp: unknown"),
        (["--config.batch_size=12"], "12 does not divide over 8 devices; take a multiple of 8"),
        (["--config.sharding=[['nothing$', ['fsdp']]]"], "'nothing$' matches no array"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny: str, words: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["inspect", tiny, "--devices", "8", *words])
    assert result.exit_code == 2
    assert said in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("nbytes", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (150 * 2**20, "150 MiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes(nbytes: int, said: str) -> None:
    assert size(nbytes) == said
