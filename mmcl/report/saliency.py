"""Where a model looks: pictures, and over each the maps of several methods."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmcl.evals.embedded import Embedded
from mmcl.evals.saliency import METHODS, Explained, explained
from mmcl.model import Model
from mmcl.report.plots import shorten
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
    layer: str | None = None,
    show: int = SHOWN,
) -> Markup:
    """The first records of a split: picture, its maps, and what its partner says.

    Raises:
        InputError: the modality has no pictures, or the tower no such layer.
    """
    record_N = np.arange(min(show, len(embedded.ids)))
    found = [of for _, of in explained(embedded, model, record_N, modality, to, layer, 32, 0)]
    said = embedded.shown[to] if isinstance(embedded.shown[to][0], str) else embedded.ids
    return drawn(
        found,
        [str(said[i]) for i in range(len(record_N))],
        f"What of '{modality}' has to do with its '{to}'",
    )


def asked_for(model: Model, splits: Sequence[Embedded]) -> dict[str, Markup]:
    """split -> its maps, where the config lists the evaluator. Of several processes all ask."""
    sections = [one for one in model.settings.eval.evaluators if one["name"] == "saliency"]
    found: dict[str, Markup] = {}
    for section in sections[:1]:
        options = {key: section[key] for key in ("modality", "to", "layer") if key in section}
        for embedded in splits:
            found[embedded.split] = saliency_maps(embedded, model, **options)
    return found


def drawn(found: list[Explained], captions: list[str], label: str) -> Markup:
    """One row a record: the picture, then each method's map over it, the stronger the more salient.

    Each map is drawn from its least (or 0, where some of it is negative) to its greatest value.
    """
    values = np.concatenate([of.value for of in found])
    maps = {name: np.concatenate([of.maps[name] for of in found]) for name in METHODS}
    rows, columns = len(values), 1 + len(maps)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, value in enumerate(values):
            picture = pixels(value)
            show(axes[row, 0], picture)
            axes[row, 0].set_ylabel(
                shorten(captions[row], 18), rotation=0, ha="right", va="center", size=7
            )
            for one, map_NxHxW in zip(axes[row, 1:], maps.values()):
                show(one, over(picture, map_NxHxW[row]))
        for one, title in zip(axes[0, 1:], maps):
            one.set_title(title.replace("_", " "), size=8, color=PALETTE["ink"])

    return svg(draw, CELL * columns + 1, CELL * rows + 0.3, label)


def over(picture_HxWx3: np.ndarray, map_HxW: np.ndarray) -> np.ndarray:
    """The picture in pale grey, and the map in the first colour."""
    low, high = max(float(map_HxW.min()), 0.0), float(map_HxW.max())
    part_HxWx1 = ((map_HxW - low) / max(high - low, 1e-12)).clip(0, 1)[..., None]
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


def show(axes: Axes, picture_HxWx3: np.ndarray) -> None:
    axes.imshow(picture_HxWx3, interpolation="none")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
