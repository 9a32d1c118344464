"""Few-shot episodes: N classes never seen as such, K examples of each, and queries to be named.

A class's prototype is the mean of the unit embeddings of its examples (Snell et al. 2017, arXiv
1703.05175), and the prototype with the highest cosine names a query. Few examples make prototypes
that lie off their class's middle; P214 shifts them onto the queries by optimal transport: with
prototypes p_c, queries q_j and the cost C_cj = || p_c - q_j ||,

    T  = argmin over T >= 0 of  <T, C> + epsilon · sum T (log T - 1),  T 1 = 1/N,  T' 1 = 1/Q
    p_c <- sum_j T_cj q_j / sum_j T_cj

repeated `ALIGNMENTS` times, T by Sinkhorn's iterations (Cuturi 2013, arXiv 1306.0895). This looks
at all queries of an episode at once, and it is told that each class has as many of them: its figure
stands beside the other, and is not to be compared with one that names queries one by one.

Decided here: everything is unit rows, prototypes too, before and after each shift; all classes of
an episode have equally many queries; the spread of a figure is that of episodes, as the field
reports it, and no witness of what other items of the split would give.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.features import check, is_right, read, task
from mmcl.evals.figure import Figures, PerItem
from mmcl.evals.knn import unit
from mmcl.model import Model

ALIGNMENTS = 3
ITERATIONS = 100  # of Sinkhorn, at most
CLOSE = 1e-3  # to what the rows of a plan ought to sum up to, of that


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "group",
    before_projection: bool = False,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 15,
    episodes: int = 600,
    epsilon: float = 0.1,
    seed: int = 0,
) -> Figures:
    """Accuracy of naming queries in random episodes of one split.

    Args:
      embedded: the split that classes, examples and queries are of.
      model: encodes the split again where features before the projection are read.
      modality: what is classified.
      label: which label classes are of.
      before_projection: read features before the projection to the shared space.
      ways: classes of an episode.
      shots: examples of each class.
      queries: of each class.
      episodes: how many there are.
      epsilon: the smaller, the nearer to unsoftened transport.
      seed: of what is drawn.

    Returns:
      Under `episodes_<label>/` (`episodes_<label>_before/` before the projection): for each K of
      `shots`, `top1@K`, and `aligned_top1@K` with shifted prototypes, one value an episode;
      `chance`, 1 / ways; `classes` with enough items for the most shots, which are those drawn
      from. Ties count as wrong.
    """
    check(embedded, modality, label, embedded.labels)
    if min(ways - 1, queries, episodes, *shots) < 1 or epsilon <= 0:
        raise InputError(
            "episodes need 2 ways or more, and 1 or more of shots, queries and episodes, and an "
            "epsilon above 0"
        )
    it = read(model, embedded, modality, label, before_projection)
    value, of_class = np.unique(it.label, return_counts=True)
    need = max(shots) + queries
    classes = value[of_class >= need]
    if len(classes) < ways:
        raise InputError(
            f"{len(classes)} values of '{label}' in '{embedded.split}' have the {need} items that "
            f"an episode takes of each, and it takes {ways}: take fewer ways, shots or queries"
        )
    members = [np.flatnonzero(it.label == c) for c in classes]
    z_NxD = unit(it.x.astype(np.float64))
    rng = np.random.default_rng(seed)
    found = np.empty((len(shots), 2, episodes))
    for episode in range(episodes):
        chosen = rng.choice(len(classes), ways, replace=False)
        item_WxI = np.stack([rng.permutation(members[c])[:need] for c in chosen])
        z_WxIxD = z_NxD[item_WxI]
        for i, k in enumerate(shots):
            found[i, :, episode] = accuracies(z_WxIxD[:, :k], z_WxIxD[:, -queries:], epsilon)
    name = task("episodes", label, before_projection)
    figures: Figures = {f"{name}/chance": 1 / ways, f"{name}/classes": float(len(classes))}
    for k, (plain_E, aligned_E) in zip(shots, found):
        figures[f"{name}/top1@{k}"] = PerItem(plain_E)
        figures[f"{name}/aligned_top1@{k}"] = PerItem(aligned_E)
    return figures


def accuracies(
    support_WxKxD: np.ndarray, query_WxJxD: np.ndarray, epsilon: float
) -> tuple[float, float]:
    """Of the nearest prototype in one episode: as it is, and shifted onto the queries."""
    ways, queries, _ = query_WxJxD.shape
    q_QxD = query_WxJxD.reshape(ways * queries, -1)
    class_Q = np.repeat(np.arange(ways), queries)
    p_WxD = unit(support_WxKxD.mean(axis=1))
    plain, shifted = (
        float(is_right(q_QxD @ p.T, class_Q).mean())
        for p in (p_WxD, aligned(p_WxD, q_QxD, epsilon))
    )
    return plain, shifted


def aligned(p_WxD: np.ndarray, q_QxD: np.ndarray, epsilon: float) -> np.ndarray:
    """Unit prototypes, shifted onto unit queries."""
    for _ in range(ALIGNMENTS):
        square_WxQ = 2 - 2 * p_WxD @ q_QxD.T
        plan_WxQ = transport(np.sqrt(np.maximum(square_WxQ, 0)), epsilon)
        p_WxD = unit(plan_WxQ @ q_QxD)
    return p_WxD


def transport(cost_WxQ: np.ndarray, epsilon: float) -> np.ndarray:
    """The plan between uniform weights: its columns sum up to 1/Q, its rows nearly to 1/W."""
    ways, queries = cost_WxQ.shape
    log_WxQ = -cost_WxQ / epsilon
    for _ in range(ITERATIONS):
        log_WxQ -= _log_sum(log_WxQ, 1) + np.log(ways)
        log_WxQ -= _log_sum(log_WxQ, 0) + np.log(queries)
        plan_WxQ = np.exp(log_WxQ)
        if np.abs(plan_WxQ.sum(axis=1) * ways - 1).max() < CLOSE:
            break
    return plan_WxQ


def _log_sum(x: np.ndarray, axis: int) -> np.ndarray:
    most = x.max(axis=axis, keepdims=True)
    return most + np.log(np.exp(x - most).sum(axis=axis, keepdims=True))
