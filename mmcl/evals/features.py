"""What probes read, and how they are judged.

A probe is fitted to the labelled items of one split and names those of another. It reads the
embeddings, which are unit rows, or what comes before the projection to the shared space: the input
of the tower's layer `projection`, of any length. The loss works on the projection's output, and
what lies before it is less specialised to the loss and tells more of what the loss has no use for
(P044), so that the two differ, mostly in favour of the latter.

Decided here: a tower that projects several times (its tokens, then their pool) is read where it
does so last; where that is one input a token, as in towers that pool by the mean, at the mean of
the tokens that are there.
"""

import functools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit
from mmcl.evals.retrieval import items
from mmcl.mesh import whole
from mmcl.model import Model
from mmcl.models.towers import Towers
from mmcl.models.transformer import masked_mean


class Items(NamedTuple):
    """The distinct items of a modality in a split."""

    x: np.ndarray  # x_NxF, float32
    label: np.ndarray  # label_N, what is to be told
    concept: np.ndarray  # concept_N, of which thing they are


def fitting_and_judged(
    embedded: Embedded,
    model: Model,
    modality: str,
    label: str,
    fit: str | None,
    before_projection: bool,
) -> tuple[Items, Items]:
    """The items that a probe is fitted to, and those it is judged by, which are `embedded`'s.

    Args:
        fit: the split of the former; None: that which the model was trained on.

    Raises:
        InputError: the splits are one, or have no class in common; there is one class only; there
            is no such modality or label; the model diverged.
    """
    fit = model.settings.source.get("split") if fit is None else fit
    if fit in (None, embedded.split):
        raise InputError(
            f"a probe of '{embedded.split}' needs another split to be fitted to: give it as 'fit'"
        )
    # not `labels`: a concept that each split makes up for itself says nothing across them
    check(embedded, modality, label, embedded.label_names)
    judged = read(model, embedded, modality, label, before_projection)
    fitting = read(model, fit, modality, label, before_projection)
    classes = np.unique(fitting.label)
    if len(classes) < 2:
        raise InputError(f"all items of '{fit}' have one '{label}': a probe needs two or more")
    if not np.isin(judged.label, classes).any():
        raise InputError(
            f"'{embedded.split}' and '{fit}' have no '{label}' in common, so that a probe of the "
            "one names none of the other: give another 'label' or 'fit'"
        )
    return fitting, judged


def check(embedded: Embedded, modality: str, label: str, labels: Collection[str]) -> None:
    """The split must have the modality, and the label be one of these."""
    for what, name, known in (("modality", modality, embedded.z.keys()), ("label", label, labels)):
        if name not in known:
            near = nearest(name, known)
            raise InputError(f"the records of '{embedded.split}' have no {what} '{name}'.{near}")


def read(
    model: Model, split: Embedded | str, modality: str, label: str, before_projection: bool
) -> Items:
    """The distinct items of a split, which is encoded if it is not, or if that does not help."""
    if isinstance(split, Embedded) and not before_projection:
        embedded = split
    else:
        name = split.split if isinstance(split, Embedded) else split
        embedded = encoded(model, name, modality, before_projection)
    record = items(embedded, modality, label)
    x_NxF = embedded.z[modality][record]
    if not before_projection:
        x_NxF = check_unit(x_NxF, modality)
    elif not np.isfinite(x_NxF).all():
        raise InputError(
            f"some '{modality}' features are NaN or infinite: the model diverged; resume an "
            "earlier checkpoint at a lower learning rate"
        )
    return Items(x_NxF, embedded.labels[label][record], embedded.labels["concept"][record])


def encoded(model: Model, split: str, modality: str, before_projection: bool) -> Embedded:
    """One modality of a split; kept with the model, because every probe of it asks for the same."""

    def encode() -> Embedded:
        encoder = read_before_projection(model) if before_projection else model
        return encoder.embed(split, [modality])

    return once(model, (split, modality, before_projection), encode)


def once(model: Model, key: Any, encode: Callable[[], Embedded]) -> Embedded:
    """What `encode` gives, which is kept with the model for all that ask by the same key."""
    if key not in model.kept:
        model.kept[key] = encode()
    return model.kept[key]


def read_before_projection(model: Model) -> Model:
    """The same model, but that encoding ends before the projection: rows of any length.

    Its encoders raise InputError for a tower without a layer `projection`.
    """
    towers = model.towers

    def encoder(modality: str) -> Callable[[Any, Any], jax.Array]:
        return functools.partial(
            _read, modality=modality, tower=towers.modules[modality], dtype=towers.dtype
        )

    return replace(model, encoders={modality: encoder(modality) for modality in towers.modules})


@functools.partial(jax.jit, static_argnames=("modality", "tower", "dtype"))
def _read(params: Any, inputs: Any, *, modality: str, tower: nn.Module, dtype: Any) -> jax.Array:
    """x_BxF, float32, whole on every device."""
    read: list[jax.Array] = []

    def look(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.path == ("projection",) and context.method_name == "__call__":
            read.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        embedding = Towers({modality: tower}, dtype).encode(
            {modality: params}, modality, inputs, train=False
        )
    if not read:
        raise InputError(
            f"the tower of '{modality}' has no layer 'projection' to read before: leave out "
            "before_projection"
        )
    x = read[-1].astype("float32")
    return whole(x if x.ndim == 2 else masked_mean(x, embedding.mask))


def class_numbers(fitting: Items, judged: Items) -> tuple[np.ndarray, np.ndarray, int]:
    """The labels of both as 0, 1, ... of the C classes that occur in the former (-1: in none), and
    C.
    """
    classes, class_N = np.unique(fitting.label, return_inverse=True)
    class_M = np.searchsorted(classes, judged.label).clip(max=len(classes) - 1)
    class_M = np.where(classes[class_M] == judged.label, class_M, -1)
    return class_N, class_M, len(classes)


def is_right(score_NxC: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """Whether the right class has the highest score, alone: (N,) bool; False for class -1."""
    rows = np.arange(len(class_N))
    right_N = score_NxC[rows, class_N]
    others_NxC = score_NxC.copy()
    others_NxC[rows, class_N] = -np.inf
    return (class_N >= 0) & (right_N > others_NxC.max(axis=1))


def accuracy(task: str, right_N: np.ndarray, judged: Items) -> Figures:
    """`top1`; `mean_per_class`, averaged over the classes of the judged items; their `count`."""
    _, class_N, of_class = np.unique(judged.label, return_inverse=True, return_counts=True)
    return {
        f"{task}/top1": PerItem(right_N, judged.concept),
        f"{task}/mean_per_class": PerItem(right_N, judged.concept, 1 / of_class[class_N]),
        f"{task}/count": float(len(right_N)),
    }


def largest_class(class_N: np.ndarray, class_M: np.ndarray) -> float:
    """Top-1 of always naming the class that is most frequent where the probe was fitted: what can
    be reached without looking.
    """
    return float(np.mean(class_M == np.bincount(class_N).argmax()))


def task(name: str, label: str, before_projection: bool) -> str:
    """What the figures of a probe stand under."""
    return f"{name}_{label}" + "_before" * before_projection
