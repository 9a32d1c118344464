"""`mmcl plan` for TPUs and GPUs that are not here, by its command."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="compiling needs libtpu: jax[tpu]"
    ),
]
RUN = "import mmcl.cli; mmcl.cli.main()"
KEYS = {
    *("peak_bytes", "hbm_bytes", "fits", "params_bytes", "optimizer_bytes", "loss_temp_bytes"),
    *("flops", "collective_bytes", "step_s", "limited_by", "examples_per_s"),
}


def plan(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, "plan", str(file), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
    )


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    tiny_config["source"] = {
        "name": "synthetic",
        "pictures": {"image": 24},
        "texts": {"text": 5},
    }
    tiny_config["transforms"] = {
        "image": [{"name": "image.resize", "size": 16}],
        "text": [{"name": "tokens.utf8", "vocab_size": 4096, "length": 16}],
    }
    tiny_config["objective"] = {"name": "infonce"}
    tiny_config["eval"] = {"splits": []}
    return tiny_config


@pytest.mark.parametrize(
    ("topology", "devices", "mesh"),
    [
        ("v5e:2x2", 4, {"data": 4}),
        ("v5p:2x2x2*2", 16, {"slice": 2, "data": 4, "fsdp": 2}),
        ("h100:2x8", 16, {"data": 2, "fsdp": 8}),
    ],
)
def test_devices_that_are_not_here(experiment_file, config, topology, devices, mesh):
    if topology.startswith("h100") and importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip("compiling for GPUs needs jax[cuda13-local]")
    config["mesh"] = {axis: size for axis, size in mesh.items() if axis != "data"}
    done = plan(experiment_file(config), "--topology", topology, "--json", "--price", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() > KEYS
    assert found["mesh"] == mesh and found["devices"] == devices
    assert found["fits"] and 0 < found["peak_bytes"] < found["hbm_bytes"]
    assert sum(found["collective_bytes"].values()) > 0
    assert found["cost"] == pytest.approx(2 * found["device_hours"])


def test_what_does_not_fit_is_said(experiment_file, config):
    config["towers"]["text"] |= {"vocab_size": 2**22, "width": 2048}
    done = plan(experiment_file(config), "--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    assert "DOES NOT FIT" in done.stdout and "of 15.8 GiB" in done.stdout
    fitted = plan(experiment_file(config), "--topology", "v5e:2x2", "--fit", "mesh")
    assert fitted.returncode == 2 and "No mesh of these devices holds this batch" in fitted.stderr


def test_the_step_is_that_of_train(experiment_file, config):
    """In a table, with what it takes; and in one line what is wrong."""
    done = plan(experiment_file(config), "--topology", "v5e:2x2", "--batch", "64")
    assert done.returncode == 0, done.stderr
    assert "4 devices of v5e:2x2 (data 4), batch 64" in done.stdout
    for word in ("parameters", "optimiser", "products", "links", "limited by", "examples/s"):
        assert word in done.stdout
    wrong = plan(experiment_file(config), "--topology", "v5e:2x2", "--batch", "66")
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith("does not divide over 4 devices; take a multiple of 4.")
