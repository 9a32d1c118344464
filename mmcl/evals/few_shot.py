"""What a few labelled examples of each class are enough for.

n items of each class are drawn from one split; features are standardised by their mean and
deviation, and a linear map to one-hot rows is fitted by least squares with a penalty
(`linear_probe.ridge`). It names the items of another split.

The measure of Dosovitskiy et al. 2020 (arXiv 2010.11929), section 4. Decided here: several draws,
each item's figure being the share of them that named it right, because which examples one gets
matters more than anything else where they are few; what a draw gives for n shots is among what it
gives for more; nothing but the drawn items is looked at, not even for the mean.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.features import Items, class_numbers, fitting_and_judged, task
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.linear_probe import Linear, named, ridge, standardised
from mmcl.model import Model

Probe = Callable[[np.ndarray, np.ndarray, int], Linear]  # (x_NxF, class_N, classes)


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "group",
    fit: str | None = None,
    before_projection: bool = False,
    shots: Sequence[int] = (1, 5, 10),
    draws: int = 10,
    l2: float = 1.0,
    seed: int = 0,
) -> Figures:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split that is judged.
      model: encodes the split that examples are drawn from.
      modality: what is classified.
      label: which label is told.
      fit: the split that examples are drawn from; None: that which the model was trained on.
      before_projection: read features before the projection to the shared space.
      shots: examples of each class; a class with fewer gives all.
      draws: how often they are drawn.
      l2: the penalty, as in `linear_probe`.
      seed: of the draws.

    Returns:
      Under `few_shot_<label>/` (`few_shot_<label>_before/` before the projection): for each n of
      `shots`, `top1@n`; `chance`, that of a uniform guess; `count` of items. Items of a class that
      `fit` has none of count as wrong, and so do ties.
    """
    if l2 <= 0:
        raise InputError(f"l2={l2} should be more than 0: a few examples leave the map open")
    fitting, judged = fitting_and_judged(embedded, model, modality, label, fit, before_projection)
    name = task("few_shot", label, before_projection)
    figures: Figures = {}
    for n in shots:
        share_M = named_from_few(
            lambda x_NxF, class_N, classes: ridge(x_NxF, class_N, classes, l2),
            *(fitting, judged, n, draws, seed),
        )
        figures[f"{name}/top1@{n}"] = PerItem(share_M, judged.concept)
    _, class_M, classes = class_numbers(fitting, judged)
    figures[f"{name}/chance"] = float(np.mean(class_M >= 0)) / classes
    figures[f"{name}/count"] = float(len(class_M))
    return figures


def named_from_few(
    probe: Probe, fitting: Items, judged: Items, shots: int, draws: int, seed: int
) -> np.ndarray:
    """For each judged item, the share of draws that name it right: (M,) float64.

    Raises:
        InputError: no class has so many items.
    """
    class_N, class_M, classes = class_numbers(fitting, judged)
    most = int(np.bincount(class_N).max())
    if not 0 < shots <= most or draws < 1:
        raise InputError(
            f"shots={shots}, draws={draws}: of no class can more than {most} examples be drawn, "
            "nor fewer than 1, once or more often"
        )
    right_M = np.zeros(len(class_M))
    for draw in range(draws):
        few = drawn(class_N, shots, np.random.default_rng((seed, draw)))
        x_NxF, x_MxF = standardised(fitting.x[few], judged.x)
        right_M += named(probe(x_NxF, class_N[few], classes), x_MxF, class_M)
    return right_M / draws


def drawn(class_N: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of so many random items of each class, or of all it has; with equal generators those
    of fewer shots are among them.
    """
    shuffled_N = rng.permutation(len(class_N))
    by_class_N = shuffled_N[np.argsort(class_N[shuffled_N], kind="stable")]
    class_N = class_N[by_class_N]
    place_N = np.arange(len(class_N)) - np.searchsorted(class_N, class_N)
    return by_class_N[place_N < shots]
