"""Robustness to corrupted pictures: what is left of retrieval and of zero-shot classification.

Seven corruptions at five severities, after ImageNet-C (Hendrycks and Dietterich 2019,
arXiv 1903.12261); relative is accuracy on corrupted pictures / accuracy on clean ones, both from 0.

| | severity 1 to 5 |
|---|---|
| `noise` | Gaussian, standard deviation 0.08 to 0.38 of the range |
| `blur` | Gaussian, radius 3 to 10 where the shorter side is 224 |
| `brightness` | 0.1 to 0.5 of the range added |
| `contrast` | 0.4 to 0.05 of the distance from each channel's mean |
| `pixelate` | to 0.6 to 0.25 of the side, by means of boxes, and back by copies |
| `jpeg` | quality 25 to 7 |
| `occlusion` | a grey square at random, of 0.05 to 0.4 of the area |

Decided here: the picture is corrupted after the transforms, as the tower gets it, so that its size
and how it was resampled make no difference but for JPEG, whose blocks are of 8 pixels whatever the
size. So numbers compare models that take pictures of one size, and not with those of ImageNet-C.
What is random hangs on the seed, the record and the corruption, and is the same at all severities.
Pictures are the queries; what they search stays as it was.
"""

import io
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.errors import InputError
from data_pipelines.names import nearest
from mmcl.evals.batches import Batch, batches
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.pairs import check_unit, ranks
from mmcl.evals.retrieval import chance, items, right_answers
from mmcl.evals.zeroshot import class_embeddings, class_names
from mmcl.model import Model

SEVERITIES = 5
GREY = 128

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    to: str = "text",
    label: str | None = None,
    templates: Sequence[str] = ("{}",),
    corruptions: Sequence[str] | None = None,
    at: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Figures:
    """Retrieval from corrupted pictures, and naming a label of them.

    Args:
      embedded: the split.
      model: encodes the corrupted pictures.
      modality: of the pictures.
      to: what they search, and what the classes' prompts are written in.
      label: which label is named too; None: none is.
      templates: prompts with `{}` where the class name goes.
      corruptions: those above that are judged; None: all.
      at: the K of recall@K.
      seed: of what is random.

    Returns:
      Under `corruptions/<modality>_to_<to>/`: `clean/recall@K`; `<corruption>/recall@K`, the mean
      over severities; `severity_<s>/recall@K`, the mean over corruptions; `mean/recall@K`, that
      over all; `relative/recall@K`, mean over clean, where anything clean is right;
      `clean/chance@K` of a random order; `clean/count` of pictures. With a label, under
      `corruptions_<label>/`, the same of `top1`.
    """
    chosen = list(CORRUPTIONS) if corruptions is None else list(corruptions)
    for name in chosen:
        if name not in CORRUPTIONS:
            raise InputError(f"no corruption '{name}'.{nearest(name, CORRUPTIONS)}")
    if not chosen:
        raise InputError(f"no corruptions: give some of {list(CORRUPTIONS)}, or leave them out")
    record, gallery = items(embedded, modality, "concept"), items(embedded, to, "concept")
    concept_N = embedded.labels["concept"]
    searches = [Search(check_unit(embedded.z[to][gallery], to), concept_N[gallery], concept_N)]
    if label is not None:
        searches.append(classes(embedded, model, to, label, templates))
    rank, *of_class = searched(embedded, model, record, modality, searches, chosen, seed)
    right_N = right_answers(concept_N[record], concept_N[gallery])
    figures: Figures = {}
    for k in at:
        figures |= summed_up(f"recall@{k}", chosen, rank.clean <= k, rank.corrupted <= k,
                             concept_N[record])  # fmt: skip
        figures[f"clean/chance@{k}"] = chance(right_N, len(gallery), k)
    figures["clean/count"] = float(len(record))
    figures = {f"corruptions/{modality}_to_{to}/{name}": it for name, it in figures.items()}
    for it in of_class:
        named = summed_up("top1", chosen, it.clean == 1, it.corrupted == 1, concept_N[record])
        guess = {"clean/chance": 1 / len(searches[1].label_G), "clean/count": float(len(record))}
        named |= guess
        figures |= {f"corruptions_{label}/{name}": figure for name, figure in named.items()}
    return figures


class Search(NamedTuple):
    """What pictures search."""

    z_GxD: np.ndarray
    label_G: np.ndarray
    label_N: np.ndarray  # of every record: what is a right answer


class Ranks(NamedTuple):
    """Of each picture's best right answer."""

    clean: np.ndarray  # (N,)
    corrupted: np.ndarray  # (corruptions, severities, N)


def classes(
    embedded: Embedded, model: Model, text: str, label: str, templates: Sequence[str]
) -> Search:
    """The classes of a label, as in `zeroshot`."""
    names = class_names(embedded, label)
    z_CxD = class_embeddings(names, templates, lambda prompts: model.encode(text, prompts))
    return Search(z_CxD, np.arange(len(names)), embedded.labels[label])


def searched(
    embedded: Embedded,
    model: Model,
    record_N: np.ndarray,
    modality: str,
    searches: Sequence[Search],
    chosen: Sequence[str],
    seed: int,
) -> list[Ranks]:
    """The ranks in every search, which alone are kept of the corrupted pictures."""
    clean = check_unit(embedded.z[modality][record_N], modality)
    parts: list[list[np.ndarray]] = [[] for _ in searches]
    for batch in batches(embedded, model, record_N):
        z_VxD = corrupted(batch, model, modality, chosen, seed)
        shape = len(chosen), SEVERITIES, batch.real
        for part, (z_GxD, label_G, label_N) in zip(parts, searches):
            label_V = np.broadcast_to(label_N[batch.record_B[: batch.real]], shape).ravel()
            part.append(ranks(z_VxD, z_GxD, label_V, label_G).reshape(shape))
    return [
        Ranks(ranks(clean, z_GxD, label_N[record_N], label_G), np.concatenate(part, axis=-1))
        for part, (z_GxD, label_G, label_N) in zip(parts, searches)
    ]


def corrupted(
    batch: Batch, model: Model, modality: str, chosen: Sequence[str], seed: int
) -> np.ndarray:
    """z of the batch's real records: corruptions, then severities, then records, all as rows."""
    inputs = batch.inputs[modality]
    pixels_BxHxWx3 = inputs.get("value", np.empty(0))
    if pixels_BxHxWx3.dtype != np.uint8 or pixels_BxHxWx3.shape[3:] != (3,):
        raise InputError(f"'{modality}' is no pictures, uint8 (H, W, 3), which alone are corrupted")
    z = []
    with ThreadPoolExecutor() as threads:
        for name in chosen:
            for severity in range(1, SEVERITIES + 1):

                def one(row: int, name: str = name, severity: int = severity) -> np.ndarray:
                    index = int(batch.inputs["index"][row])
                    return corrupt(pixels_BxHxWx3[row], name, severity, index, seed)

                value = np.stack(list(threads.map(one, range(len(pixels_BxHxWx3)))))
                z_BxD = model.encode_batch(modality, {**inputs, "value": value})
                z.append(check_unit(z_BxD[: batch.real], modality))
    return np.concatenate(z)


def corrupt(
    pixels_HxWx3: np.ndarray, name: str, severity: int, index: int, seed: int
) -> np.ndarray:
    """The same picture at this severity, 1 to 5; what is random hangs on seed, index and name."""
    rng = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    return CORRUPTIONS[name](pixels_HxWx3, severity, rng)


def summed_up(
    metric: str,
    chosen: Sequence[str],
    clean_N: np.ndarray,
    hit_CxSxN: np.ndarray,
    cluster_N: np.ndarray,
) -> Figures:
    """Hits at each corruption, at each severity, and at all together."""
    over = {f"{name}/{metric}": hit_CxSxN[c].mean(axis=0) for c, name in enumerate(chosen)}
    for s in range(SEVERITIES):
        over[f"severity_{s + 1}/{metric}"] = hit_CxSxN[:, s].mean(axis=0)
    over = {f"clean/{metric}": clean_N, **over, f"mean/{metric}": hit_CxSxN.mean(axis=(0, 1))}
    figures: Figures = {name: PerItem(value_N, cluster_N) for name, value_N in over.items()}
    if clean_N.any():
        figures[f"relative/{metric}"] = float(hit_CxSxN.mean() / clean_N.mean())
    return figures


def noise(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return _pixels(pixels_HxWx3 + 255 * deviation * rng.normal(size=pixels_HxWx3.shape))


def blur(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    radius = (3, 4, 6, 8, 10)[severity - 1] * min(pixels_HxWx3.shape[:2]) / 224
    return np.asarray(Image.fromarray(pixels_HxWx3).filter(ImageFilter.GaussianBlur(radius)))


def brightness(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return _pixels(pixels_HxWx3 + 255 * 0.1 * severity)


def contrast(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean_3 = pixels_HxWx3.mean(axis=(0, 1))
    return _pixels(mean_3 + kept * (pixels_HxWx3 - mean_3))


def pixelate(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    kept = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture = Image.fromarray(pixels_HxWx3)
    small = (max(1, round(kept * picture.width)), max(1, round(kept * picture.height)))
    coarse = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize(picture.size, Image.Resampling.NEAREST))


def jpeg(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels_HxWx3).save(file, "jpeg", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(file))


def occlusion(pixels_HxWx3: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.05, 0.1, 0.2, 0.3, 0.4)[severity - 1]
    sides = [max(1, round(share**0.5 * side)) for side in pixels_HxWx3.shape[:2]]
    place = rng.random(2)
    rows, columns = (
        slice(start := int(at * (side - size + 1)), start + size)
        for at, side, size in zip(place, pixels_HxWx3.shape, sides)
    )
    found = pixels_HxWx3.copy()
    found[rows, columns] = GREY
    return found


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (noise, blur, brightness, contrast, pixelate, jpeg, occlusion)
}
