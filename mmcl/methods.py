"""The catalogue of published methods, and which of them are here.

`methods.tsv` lists them. Whether one is here its own file says, in the first words of lines of its
docstring, so that adding a method needs no other list:

    Paper: P038, Yeh et al. 2022 ...     whose method the file is, or a part of; several ids, too
    Claim: shown: ...                    in an experiment: what it was held to; or `not shown:`

A file in `experiments/` makes a method one that runs; a module alone makes it a component.
"""

import ast
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mmcl import config as configs

FOLDERS = ("mmcl/objectives", "mmcl", "pallas_kernels", "data_pipelines")  # first come, first named

Status = Literal["runs", "component", "linked", "absent"]
Claim = Literal["shown", "not_shown", "none"]


class Method(NamedTuple):
    """One of the catalogue.

    Attributes:
        status: `runs`: there is an experiment; `component`: there is a part to use; `linked`: it
            lies outside of what the framework is for; `absent`: it is not here yet.
        module: the first file that says it is the method's, as an import name; None: there is none.
        experiment: the same of experiments, as a path.
        claim: whether its experiment's claim was shown.
    """

    id: str
    name: str
    title: str
    status: Status
    module: str | None
    experiment: str | None
    claim: Claim


class Header(NamedTuple):
    """What a docstring says in its header lines."""

    papers: tuple[str, ...]
    claim: Claim


def methods() -> list[Method]:
    """The whole catalogue, in its order."""
    modules: dict[str, str] = {}
    for name, file in _modules():
        for paper in header(file).papers:
            modules.setdefault(paper, name)
    experiments: dict[str, tuple[str, Claim]] = {}
    for file in configs.brought_along():
        found = header(file)
        for paper in found.papers:
            experiments.setdefault(paper, (f"experiments/{file.name}", found.claim))
    return [_method(row, modules, experiments) for row in catalogue()]


def catalogue() -> list[dict[str, str]]:
    """Rows of `id`, `name`, `scope` (core, component, linked) and `title`."""
    with (Path(__file__).parent / "methods.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def header(file: Path) -> Header:
    """The header lines of a Python file's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    papers = re.search(r"^Paper:\s+(P\d{3}(?:, P\d{3})*)\b", text, re.MULTILINE)
    claim = re.search(r"^Claim:\s+(not shown|shown):", text, re.MULTILINE)
    told: dict[str, Claim] = {"shown": "shown", "not shown": "not_shown"}
    return Header(
        tuple(papers[1].split(", ")) if papers else (), told[claim[1]] if claim else "none"
    )


def _modules() -> Iterator[tuple[str, Path]]:
    """(import name, file) of every module, objectives first; some twice."""
    root = Path(__file__).resolve().parent.parent
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if parts[:2] != ("mmcl", "experiments"):
                yield ".".join(part for part in parts if part != "__init__"), file


_NO_EXPERIMENT: tuple[str | None, Claim] = (None, "none")


def _method(
    row: dict[str, str], modules: dict[str, str], experiments: dict[str, tuple[str, Claim]]
) -> Method:
    module = modules.get(row["id"])
    experiment, claim = experiments.get(row["id"], _NO_EXPERIMENT)
    status: Status = "linked" if row["scope"] == "linked" else "absent"
    if module is not None:
        status = "component"
    if experiment is not None:
        status = "runs"
    return Method(row["id"], row["name"], row["title"], status, module, experiment, claim)


def counts(found: Iterable[Method]) -> dict[Status, int]:
    """How many methods have each status."""
    told: dict[Status, int] = {"runs": 0, "component": 0, "linked": 0, "absent": 0}
    for one in found:
        told[one.status] += 1
    return told
