"""Who may import whom, and what the wheel carries."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = {"experiments", "mmcl", "pallas_kernels", "data_pipelines", "tests"}
MAY_IMPORT = {
    "experiments": {"ml_collections", "experiments"},
    "pallas_kernels": {"jax", "numpy", "pallas_kernels"},
    "data_pipelines": None,  # anything but what is forbidden below
    "mmcl": None,
}
NEVER = {
    "experiments": set(),
    "pallas_kernels": set(),
    "data_pipelines": {"jax", "flax", "optax", "orbax", "mmcl", "pallas_kernels", "experiments"},
    "mmcl": {"experiments", "tests", "tensorflow", "torch"},
}


def imported(file: Path) -> set[str]:
    """Top-level names of the packages that a file imports, but the standard library."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        names = imported(file)
        if package == "experiments":  # an experiment may change another one beside it
            names -= {other.stem for other in file.parent.glob("*.py")}
        allowed = MAY_IMPORT[package]
        assert allowed is None or names <= allowed, (file, names - allowed)
        assert not names & NEVER[package], (file, names & NEVER[package])


def test_nothing_else_stands_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    top = {name.partition("/")[0] for name in tracked}
    visible = {name for name in top if not name.startswith(".")}
    assert visible == HOUSE | {"pyproject.toml", "README.md", "BUILD_NOTES.md"}


@pytest.mark.long
def test_the_wheel_carries_the_experiments_and_no_tests(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    top = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"mmcl", "pallas_kernels", "data_pipelines"}
    shipped = {name for name in names if name.startswith("mmcl/experiments/")}
    own = {f"mmcl/experiments/{file.name}" for file in (ROOT / "experiments").glob("*.py")}
    assert own <= shipped
    # away from the checkout, the wheel's own files train
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[0] = {str(site)!r}; import mmcl.cli, mmcl.config;"
            f"assert mmcl.cli.__file__.startswith({str(site)!r});"
            "sys.argv = ['mmcl', 'train', 'experiments/quickstart.py:runlocal']; mmcl.cli.main()",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "runs/quickstart-runlocal/report.html").is_file()
