"""Several views of one record: crops and augmentations of one value, or the values it has stored.

Views are stacked in front: `value` (K, ...) in an example, (B, K, ...) in a batch. A tower that
takes one view after another folds them into the batch, `rearrange(x, "b k ... -> (b k) ...")`.
In evaluation there are as many views, so that shapes are the same, and chance has no part in them.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import transform_list
from data_pipelines.faults import Fault
from data_pipelines.picture_file import Decoded, PictureFile, opened
from data_pipelines.pipeline import stack
from data_pipelines.transform_list import Section
from data_pipelines.transforms import crop


def multi_crop(
    value: bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    size: int = 224,
    count: int = 2,
    scale: tuple[float, float] = (0.4, 1.0),
    local_size: int = 96,
    local_count: int = 6,
    local_scale: tuple[float, float] = (0.05, 0.4),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    transforms: Sequence[Section] = (),
    local_transforms: Sequence[Section] = (),
) -> dict[str, Any]:
    """A few large and some small crops of one picture (SwAV, Caron et al. 2020, arXiv:2006.09882).

    The picture is decoded once. In evaluation every view is the square in the middle.

    Args:
        size, count, scale: of the large, global views; shares of the picture's area.
        local_size, local_count, local_scale: of the small, local ones.
        ratio: the least and the greatest width over height of what is cut out.
        flip: how probable it is that a view is mirrored.
        transforms, local_transforms: what is done to each view, with chances of its own.

    Returns:
        `value` (K, size, size, 3) uint8; `boxes` (K, 4) float32, x0, y0, x1, y1 of each view as
        shares of the picture's width and height; `flipped` (K,) bool; under `local` the same of the
        local views, where there are some; in evaluation `raw`, the first view before `transforms`.
    """
    picture = opened(value)
    kinds = [(size, scale)] * count + [(local_size, local_scale)] * local_count
    if train:
        draw = functools.partial(crop.random_box, rng, picture.height, picture.width, ratio=ratio)
        boxes = [draw(scale=share) for _, share in kinds]
    else:
        boxes = [crop.middle_box(picture.height, picture.width, 1.0)] * len(kinds)
    flipped_K = np.array([train and rng.random() < flip for _ in kinds], bool)
    cuts = crop.cut(picture, [(box, side) for box, (side, _) in zip(boxes, kinds)])
    views = [view[:, ::-1] if flipped else view for view, flipped in zip(cuts, flipped_K)]

    def together(part: slice, sections: Sequence[Section]) -> dict[str, Any]:
        run = _built(sections, folder)
        made = [
            run(np.ascontiguousarray(view), rng=child, train=train)
            for view, child in zip(views[part], rng.spawn(len(views[part])))
        ]
        return {**_stacked(made), **_places(picture, boxes[part]), "flipped": flipped_K[part]}

    found = together(slice(0, count), transforms)
    if local_count:
        found["local"] = together(slice(count, None), local_transforms)
    return found if train else {**found, "raw": views[0]}


def repeat(
    value: Any,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    count: int,
    transforms: Sequence[Section],
) -> dict[str, Any]:
    """One value `count` times through a list of transforms, each time with chances of its own.

    Returns:
        What the last transform gives (an array counts as `value`), stacked to (K, ...); in
        evaluation `raw` of the first.
    """
    run = _built(transforms, folder)
    return _stacked([run(value, rng=child, train=train) for child in rng.spawn(count)])


def each(
    value: Sequence[Any] | str | bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    folder: Path | None = None,
    most: int,
    transforms: Sequence[Section],
) -> dict[str, Any]:
    """The values that a record has stored (captions, pictures), each through a list of transforms.

    Where there are more than `most`, so many in random order, in evaluation the first. A value
    alone is a list of one.

    Returns:
        As of `repeat`, and `present` (K,) bool, K = `most`: which are there; the others are zeros.

    Raises:
        Fault: `missing_value`: there is none.
    """
    stored = _some(_listed(value), rng, train, most)
    run = _built(transforms, folder)
    found = _stacked(
        [run(one, rng=child, train=train) for one, child in zip(stored, rng.spawn(len(stored)))]
    )
    raw = {key: found.pop(key) for key in ("raw",) if key in found}
    return {
        **_filled_up(found, most - len(stored)),
        **raw,
        "present": np.arange(most) < len(stored),
    }


def choose(
    value: Sequence[Any] | str | bytes | np.ndarray,
    *,
    rng: np.random.Generator,
    train: bool,
    count: int | None = None,
) -> Any:
    """Of the values that a record has stored a random one, in evaluation the first.

    Args:
        count: a list of so many different ones instead, or of all where there are not so many.

    Raises:
        Fault: `missing_value`: there is none.
    """
    chosen = _some(_listed(value), rng, train, count or 1)
    return chosen[0] if count is None else chosen


def _listed(value: Any) -> Sequence[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise Fault("missing_value", "there is nothing to take a view of")
    return values


def _some(values: Sequence[Any], rng: np.random.Generator, train: bool, most: int) -> list[Any]:
    if train and len(values) > most:
        return [values[i] for i in rng.choice(len(values), most, replace=False)]
    return list(values[:most])


def _places(picture: PictureFile | Decoded, boxes: Sequence[Any]) -> dict[str, np.ndarray]:
    sides = np.array([picture.width, picture.height] * 2, np.float32)
    return {"boxes": np.array(boxes, np.float32).reshape(-1, 4) / sides}


def _stacked(made: Sequence[Any]) -> dict[str, Any]:
    """Views -> one dict of them all; `raw` is that of the first."""
    views = [view if isinstance(view, Mapping) else {"value": view} for view in made]
    raw = {"raw": views[0]["raw"]} if "raw" in views[0] else {}
    return {**stack([{k: v for k, v in view.items() if k != "raw"} for view in views]), **raw}


def _filled_up(part: Any, missing: int) -> Any:
    if isinstance(part, Mapping):
        return {key: _filled_up(value, missing) for key, value in part.items()}
    return np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])


def _built(sections: Sequence[Section], folder: Path | None) -> Callable[..., Any]:
    """The transforms of a config in turn, looked up once."""
    return _in_turn(json.dumps(list(sections)), folder)


@functools.lru_cache
def _in_turn(sections: str, folder: Path | None) -> Callable[..., Any]:
    functions = transform_list.build(json.loads(sections), "transforms", folder)

    def run(value: Any, *, rng: np.random.Generator, train: bool) -> Any:
        for function in functions:
            value = function(value, rng=rng, train=train)
        return value

    return run
