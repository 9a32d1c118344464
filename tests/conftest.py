"""Tests see 8 CPU devices; what needs fewer takes a part of them."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # what mmcl begins again for
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["NPROC"] = "32"  # threads for them, as mmcl/forced_devices.py gives

import pprint
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import settings
from jax.sharding import Mesh

settings.register_profile(
    "mmcl",
    deadline=None,  # a busy machine is no failure
    derandomize="CI" in os.environ,  # there the same examples every time, elsewhere new ones
)
settings.load_profile("mmcl")


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    """A whole experiment on 24 concepts of the real emoji, with towers that compile in a second."""
    return {
        "steps": 6,
        "batch_size": 16,
        "embed_dim": 8,
        "source": {"name": "emoji", "split": "train", "limit": 24},
        "transforms": {
            "image": [
                {"name": "image.affine"},
                {"name": "image.composite", "colour": 0.5},
                {"name": "image.jitter"},
                {"name": "image.sketch"},
                {"name": "image.resize", "size": 16},
            ],
            "text": [
                {"name": "text.choose", "languages": ["en", "de"], "share": 0.5},
                {"name": "text.drop_words", "rate": 0.2},
                {"name": "text.tokenize", "vocab_size": 4096, "length": 8},
            ],
        },
        "towers": {
            "image": {"name": "vit", "patch": 8, "width": 16, "depth": 1, "heads": 2},
            "text": {"name": "text", "vocab_size": 4096, "width": 16, "depth": 1, "heads": 2},
        },
        "objective": {"name": "supcon", "positives": "concept"},
        "optimizer": {"name": "adamw", "weight_decay": 0.1, "clip_norm": 1.0},
        "schedule": {"name": "warmup_cosine", "peak": 1e-2, "warmup": 2},
        "ema": 0.9,
        "eval": {"splits": ["unseen_artist"], "every": 3, "batch_size": 16},
        "checkpoint": {"every": 2, "keep": 3},
        "log_every": 1,
    }


@pytest.fixture
def experiment_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a config as a file that the command line takes."""

    def experiment_file(config: dict[str, Any], folder: Path = tmp_path) -> Path:
        file = folder / "experiment.py"
        file.write_text(
            "from ml_collections import ConfigDict\n\n\n"
            f"def get_config(arg=None):\n    return ConfigDict({pprint.pformat(config)})\n"
        )
        return file

    return experiment_file


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    """The processes that one has started and not waited for."""

    def children(pid: int) -> list[int]:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return children


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """But for long tests, programs are compiled in half the time, without most optimisations.

    Before any fixture, so that what a module's tests share is compiled as they are.
    """
    quick = item.get_closest_marker("long") is None
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture
def optimized() -> None:
    """Programs compiled as for users, where a test is about what the compiler makes of them."""
    jax.config.update("jax_disable_most_optimizations", False)


_BUILT: dict[Any, Any] = {}  # what `shared_builds` has built


@pytest.fixture
def shared_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of equal stages on equal devices share what is built, and so compile it once."""
    import mmcl.load
    import mmcl.replay
    import mmcl.train
    from mmcl.built_stage import build

    def built(stage: Any, mesh: Mesh) -> Any:
        key = repr(stage), mesh
        if key not in _BUILT:
            _BUILT[key] = build(stage, mesh)
        return _BUILT[key]

    monkeypatch.setattr(mmcl.train, "build", built)
    monkeypatch.setattr(mmcl.load, "build", built)
    monkeypatch.setattr(mmcl.replay, "build", built)


@pytest.fixture
def one_device() -> Mesh:
    from mmcl.mesh import data_mesh

    return data_mesh(jax.devices()[:1])
