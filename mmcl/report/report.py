"""report.html: what a run did and what its model can do, in one file that needs nothing else."""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from mmcl.evals import retrieval
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.report import logged, plots, svg
from mmcl.report.gallery import Gallery, Query, gallery
from mmcl.report.pictures import Pictures

PICTURE_BYTES = 1_200_000  # all pictures of the galleries
GALLERY_ROWS = 8  # right ones, and as many wrong ones, of one direction
PAGE_ROWS = 64  # the same of all directions of all splits
HEAT_MAPS = 6  # of all splits


def write_report(
    workdir: Path,
    *,
    name: str,
    config: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    splits: Sequence[Embedded],
    next_steps: Sequence[tuple[str, str, str]],
    spread: logged.Spread | None = None,
    saliency: Mapping[str, Markup] | None = None,
) -> Path:
    """Write `report.html` into `workdir`, whole or not at all, and return its path.

    Args:
      workdir: the folder of the run.
      name: of the experiment.
      config: the resolved config.
      rows: the lines of metrics.jsonl; `hardware/<what>` in any of them is shown in the header.
      splits: what the model makes of each evaluated split.
      next_steps: (title, command, why) each.
      spread: the 95 % interval of each figure that has one.
      saliency: split -> maps of where the model looks.
    """
    spread = spread or {}
    splits = [embedded for embedded in splits if embedded.ids]
    evals = {k: v for row in rows for k, v in row.items() if k.startswith("eval/")}
    for embedded in splits:
        if not any(key.startswith(f"eval/{embedded.split}/") for key in evals):
            computed = numbers(retrieval.evaluate(embedded, None))
            evals |= {f"eval/{embedded.split}/{key}": value for key, value in computed.items()}
    recall = logged.recall_tables(evals, spread)
    pictures = Pictures()
    template = environment().get_template("template.html.jinja")
    page = template.render(
        name=name,
        written=time.strftime("%Y-%m-%d %H:%M"),
        finished=any(row.get("final") for row in rows),
        facts=logged.facts(rows, config),
        recall=recall,
        ks=sorted({k for lines in recall.values() for line in lines for k in line["recall"]}),
        other_evals=logged.other_evals(evals, spread),
        curves=logged.training_curves(rows),
        recall_curves=logged.recall_curves(rows),
        splits=[
            show_split(embedded, pictures, len(splits))
            | {"saliency": (saliency or {}).get(embedded.split)}
            for embedded in splits
        ],
        next_steps=next_steps,
        config=logged.flat(config),
        picture_css=Markup(pictures.css(PICTURE_BYTES)),
        palette=svg.PALETTE,
    )
    return write_whole(workdir / "report.html", page)


def show_split(embedded: Embedded, pictures: Pictures, splits: int) -> dict[str, Any]:
    """Galleries, heat maps and the map of the modalities of one of `splits` splits."""
    words_first = sorted(embedded.z, key=lambda modality: not is_words(embedded, modality))
    directions = list(itertools.permutations(words_first, 2))
    rows = max(1, min(GALLERY_ROWS, PAGE_ROWS // max(1, splits * len(directions))))
    pairs = list(itertools.combinations(words_first, 2))[: max(1, HEAT_MAPS // splits)]
    heat_maps = [(row, column, plots.heat_map(embedded, row, column)) for row, column in pairs]
    plane, gaps = plots.modality_map(embedded)
    return {
        "name": embedded.split,
        "records": len(embedded.ids),
        "galleries": [
            show_gallery(embedded, gallery(embedded, from_, to, rows), pictures)
            for from_, to in directions
        ],
        "heat_maps": [heat_map for heat_map in heat_maps if heat_map[2]],
        "grouped": "group" in embedded.label_names,
        "plane": plane,
        "gaps": [(a, b, gap) for (a, b), gap in gaps.items()],
    }


def show_gallery(embedded: Embedded, found: Gallery, pictures: Pictures) -> dict[str, Any]:
    """A gallery with what its records look like in place of their numbers."""

    def show(modality: str, record: int) -> dict[str, str]:
        value = embedded.shown[modality][record]
        if isinstance(value, str):
            words = plots.shorten(value, 120) or "(empty)"
            return {"words": words, "name": plots.shorten(value, 600)}
        named = [m for m in embedded.z if is_words(embedded, m)]
        name = embedded.shown[named[0]][record] if named else embedded.ids[record]
        return {"picture": pictures.add(np.asarray(value)), "name": plots.shorten(name, 600)}

    def show_query(query: Query) -> dict[str, Any]:
        answers = [(show(found.to, a.record), a.score, a.right) for a in query.answers]
        return {
            "query": show(found.from_, query.record),
            "answers": answers,
            "rank": query.rank,
            "missed": None if query.missed is None else show(found.to, query.missed),
        }

    return {
        "from": found.from_,
        "to": found.to,
        "queries": found.queries,
        "right_queries": found.right_queries,
        "words": is_words(embedded, found.to),
        "right": [show_query(query) for query in found.right],
        "wrong": [show_query(query) for query in found.wrong],
    }


def is_words(embedded: Embedded, modality: str) -> bool:
    return isinstance(embedded.shown[modality][0], str)


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mmcl", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": logged.percent, "count": logged.count, "figure": logged.figure}
    return made


def write_whole(path: Path, text: str) -> Path:
    """Write a file that others see whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
