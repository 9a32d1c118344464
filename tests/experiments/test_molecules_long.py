"""Convergence: the short form of the molecules learns what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_unseen_molecules_are_found_both_ways(tmp_path):
    command = [sys.executable, "-c", "from mmcl.cli import main; main()", "train"]
    options = ["experiments/molecules.py:short", "--workdir", str(tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "MMCL_CACHE": str(tmp_path / "cache")}
    environment.pop("XLA_FLAGS", None)  # one device, as on a machine of two cores
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=True, timeout=1200)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["final"] and last["step"] == 150
    for way in ("name_to_smiles", "smiles_to_name"):
        task = f"eval/unseen_formula/{way}"
        assert last[f"{task}/queries"] == last[f"{task}/gallery"] == 2000
        assert last[f"{task}/recall@1"] > 0.83  # measured: 0.864 and 0.873
