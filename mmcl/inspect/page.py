"""inspect.html and sheet.png: what was seen of a source, for people."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcl.contact_sheet import contact_sheet
from mmcl.inspect.counts import QUANTILES
from mmcl.inspect.look import EPOCHS, Looked
from mmcl.report.report import environment, write_whole


def write_page(path: Path, name: str, looked: Looked) -> Path:
    """One file that needs nothing else; every picture has the pixels that the model receives."""

    def label(entry: str, value: int) -> str:
        names = looked.label_names.get(entry, ())
        return names[value] if 0 <= value < len(names) else str(value)

    page = (
        environment()
        .get_template("inspect.html.jinja")
        .render(
            name=name,
            looked=looked,
            quantiles=list(QUANTILES),
            received=any(card.received for card in looked.cards),
            epochs=EPOCHS,
            label=label,
            uri=_uri,
        )
    )
    return write_whole(path, page)


def draw_sheet(name: str, looked: Looked) -> Image.Image:
    """A contact sheet of the cards: what is received of each in the first epoch, else what is
    stored.
    """
    items: list[Any] = []
    for card in looked.cards:
        parts = list((card.received[0] if card.received else card.stored).values())
        pictures = [picture for part in parts for picture in part.pictures]
        words = " · ".join(part.words for part in parts if part.words)
        items.append((pictures[0] if pictures else None, words or card.id, None))
    return contact_sheet(items, title=f"{name}: {looked.records:,} records")


def plain(looked: Looked) -> dict[str, Any]:
    """As JSON has it; without the cards."""
    return {
        "records": looked.records,
        "seen": looked.seen,
        "entries": {
            entry.name: {
                "there": entry.there,
                "kinds": dict(entry.kinds),
                "different": len(entry.values),
                "values": {str(value): n for value, n in entry.values.most_common(20)},
            }
            for entry in looked.entries
        },
        "texts": {
            text.name: {
                "count": text.count,
                "per_record": text.per_record,
                "letters": text.letters,
                "words": text.words,
                "blank": text.blank,
                "languages": dict(text.languages),
            }
            for text in looked.captions
        },
        "tokens": {
            one.modality: {"places": one.places, "used": one.used, "full": one.full}
            for one in looked.tokens
        },
        "rejected": [
            {"id": one.id, "index": one.index, "kind": one.kind, "reason": one.reason}
            for one in looked.rejected
        ],
    }


def _uri(picture: np.ndarray) -> str:
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "png")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
