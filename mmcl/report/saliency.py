"""Where a model looks: inputs, and over each the maps of several methods."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmcl.evals.embedded import Embedded
from mmcl.evals.input_scores import is_ids
from mmcl.evals.saliency import METHODS, Explained, explained
from mmcl.model import Model
from mmcl.report.plots import shorten, thinned
from mmcl.report.saliency_words import coloured, strength
from mmcl.report.svg import COLOURS, PALETTE, svg

SHOWN = 6
CELL = 1.15  # inches
FADED = 0.75  # of the picture under a map, how much is white


def saliency_maps(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    layer: str | Sequence[str] | None = None,
    show: int = SHOWN,
) -> Markup:
    """The first records of a split: input, its maps, and what its partner says.

    Raises:
        InputError: the modality cannot be explained, or the tower has no such layer.
    """
    shown = range(min(show, len(embedded.ids)))
    parts = list(explained(embedded, model, np.array(shown), modality, to, layer, 32, 0))
    said = embedded.shown[to] if isinstance(embedded.shown[to][0], str) else embedded.ids
    captions = [str(said[i]) for i in shown]
    label = f"What of '{modality}' has to do with its '{to}'"
    found = [of for _, of in parts]
    if not is_ids(parts[0][0].inputs[modality]):
        return drawn(found, captions, label)
    texts = [str(embedded.shown[modality][i]) for i in shown]
    return coloured(found, captions, label, texts, model.pipeline.transforms[modality][-1])


def asked_for(model: Model, splits: Sequence[Embedded]) -> dict[str, Markup]:
    """split -> its maps, where the config lists the evaluator. Of several processes all ask."""
    sections = [one for one in model.settings.eval.evaluators if one["name"] == "saliency"]
    found: dict[str, Markup] = {}
    for section in sections:
        options = {key: section[key] for key in ("modality", "to", "layer") if key in section}
        for embedded in splits:
            shown = saliency_maps(embedded, model, **options)
            found[embedded.split] = found.get(embedded.split, Markup()) + shown
    return found


def drawn(found: list[Explained], captions: list[str], label: str) -> Markup:
    """One row a record: the input, then each method's map over it, the stronger the more salient.

    Each map is drawn from its least (or 0, where some of it is negative) to its greatest value. Of
    films the middle frame is shown.
    """
    values = np.concatenate([of.value for of in found])
    maps = {
        name: np.concatenate([of.maps[name] for of in found])
        for name in METHODS
        if name in found[0].maps
    }
    if found[0].there.ndim > 3:
        middle = values.shape[1] // 2
        values = values[:, middle]
        maps = {name: map_of[:, middle] for name, map_of in maps.items()}
    show = curve if found[0].there.ndim == 2 else picture
    rows, columns = len(values), 1 + len(maps)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, value in enumerate(values):
            show(axes[row, 0], value, None)
            axes[row, 0].set_ylabel(
                shorten(captions[row], 18), rotation=0, ha="right", va="center", size=7
            )
            for one, map_of in zip(axes[row, 1:], maps.values()):
                show(one, value, map_of[row])
        for one, title in zip(axes[0, 1:], maps):
            one.set_title(title.replace("_", " "), size=8, color=PALETTE["ink"])
        for one in axes.flat:
            one.grid(False)
            one.spines[:].set_visible(False)
            one.set_xticks([])
            one.set_yticks([])

    return svg(draw, CELL * columns + 1, CELL * rows + 0.3, label)


def picture(axes: Axes, value: np.ndarray, map_HxW: np.ndarray | None) -> None:
    """(H, W, C), or (H, W) of another kind than pixels, which fills the cell."""
    seen_HxWx3 = pixels(value if value.ndim == 3 else value[..., None])
    if map_HxW is not None:
        seen_HxWx3 = over(seen_HxWx3, map_HxW)
    axes.imshow(seen_HxWx3, interpolation="none", aspect="equal" if value.ndim == 3 else "auto")


def curve(axes: Axes, value_P: np.ndarray, map_P: np.ndarray | None) -> None:
    """In pale grey, and the map in the first colour."""
    place, seen = thinned(np.arange(len(value_P)), value_P)
    axes.plot(place, seen, color=PALETTE["muted"], linewidth=0.8, alpha=1 - FADED)
    if map_P is None:
        axes.plot(place, seen, color=PALETTE["ink"], linewidth=0.8)
        return
    _, part = thinned(place, strength(map_P))
    ends = np.stack([place, seen], axis=1)
    lines = np.stack([ends[:-1], ends[1:]], axis=1)
    colour = [(*to_rgb(COLOURS[1]), one) for one in (part[:-1] + part[1:]) / 2]
    axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=1.6))


def over(picture_HxWx3: np.ndarray, map_HxW: np.ndarray) -> np.ndarray:
    """The picture in pale grey, and the map in the first colour."""
    part_HxWx1 = strength(map_HxW)[..., None]
    grey_HxWx1 = FADED + (1 - FADED) * picture_HxWx3.mean(axis=-1, keepdims=True)
    return (1 - part_HxWx1) * grey_HxWx1 + part_HxWx1 * np.array(to_rgb(COLOURS[1]))


def pixels(value_HxWxC: np.ndarray) -> np.ndarray:
    """As they are seen, (H, W, 3) from 0 to 1; of floats, from the least to the greatest."""
    value = value_HxWxC.astype(np.float64)
    if value_HxWxC.dtype == np.uint8:
        value = value / 255
    else:
        value = (value - value.min()) / max(float(np.ptp(value)), 1e-12)
    return value if value.shape[-1] == 3 else np.repeat(value.mean(axis=-1, keepdims=True), 3, -1)
