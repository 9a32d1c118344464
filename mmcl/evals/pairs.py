"""Statistics of all pairs of two sets of unit vectors: on all devices, never the grid of them.

Everything goes through the pair engine on the mesh in the context, so that memory is O(N); without
a mesh, on one device. Of several processes all ask, with the same arrays, and all are answered.

Scores are float32. Two that differ by less than `TIE` count as equal, and no tie is ever counted in
a model's favour: rounding cannot tell them apart, and a collapsed model comes last.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import InputError
from mmcl.mesh import batch_devices, split_whole_batch, whole
from pallas_kernels.pair_reduce import Reduce, TopK, pair_reduce

TIE = 2.0**-20
FILLED = 64  # sides are filled up to a multiple, so that few sizes are compiled


def check_unit(z_NxD: np.ndarray, what: str) -> np.ndarray:
    """The same, as float32, if all rows are unit vectors.

    Raises:
        InputError: some are not, which a diverged model makes.
    """
    unit_N = np.abs(np.linalg.norm(z_NxD, axis=1) - 1) < 0.01  # False for NaN
    if not unit_N.all():
        raise InputError(
            f"{np.count_nonzero(~unit_N)} of {len(z_NxD)} '{what}' embeddings are NaN or not of "
            "unit length: the model diverged; resume an earlier checkpoint at a lower learning rate"
        )
    return np.asarray(z_NxD, np.float32)


def ranks(
    z_QxD: np.ndarray,
    z_GxD: np.ndarray,
    label_Q: np.ndarray,
    label_G: np.ndarray,
    out_Q: np.ndarray | None = None,
) -> np.ndarray:
    """Rank (1 = nearest) of each query's best right answer, the gallery item of its label.

    A wrong item with the same score is ranked before a right one.

    Args:
        out_Q: the gallery row that each query does not see, which leaves it a right answer.
    """
    if not np.isin(label_Q, label_G).all():
        raise ValueError("some queries have no right answer in the gallery: leave them out")
    out = {} if out_Q is None else {"out": out_Q.astype(np.int32)}
    return ranked(side(z_QxD, label_Q, **out), side(z_GxD, label_G), cosine)[: len(z_QxD)]


def ranked(rows: "Side", cols: "Side", score: "Score") -> np.ndarray:
    """The ranks of `ranks`, by any score, of rows of which each has a right answer, or is filling.

    Args:
        score: of every row of a tile with every column; −inf where one is filling.
    """
    return 1 + jax.device_get(_ahead(rows, cols, score)).astype(np.int64)


def nearest(z_QxD: np.ndarray, z_GxD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query, nearest first and in order on equal scores.

    Returns:
        their numbers (Q, k) int64 and cosines (Q, k) float32; fewer columns where there are fewer.
    """
    k = min(k, len(z_GxD))
    score_Qxk, index_Qxk = jax.device_get(_top(side(z_QxD), side(z_GxD), k))
    return index_Qxk[: len(z_QxD)].astype(np.int64), score_Qxk[: len(z_QxD)]


def unit_or_zero(z_NxD: np.ndarray) -> np.ndarray:
    """Rows of length one; zero, which ties with everything, where nothing but rounding is left."""
    norm_N = np.linalg.norm(z_NxD, axis=1, keepdims=True)
    return z_NxD / np.where(norm_N > 1e-6, norm_N, np.inf)


def log_mean_exp(z_NxD: np.ndarray, scale: float) -> float:
    """log mean exp(scale · z_i·z_j) over all i != j; NaN where there are fewer than two."""
    n = len(z_NxD)
    if n < 2:
        return float("nan")
    return float(_lse(side(z_NxD), np.float32(scale))) - float(np.log(n) + np.log(n - 1))


Side = dict[str, Any]  # z (N, D), label (N,), real (N,): which are no filling
Score = Callable[[Side, Side], jax.Array]


def side(z_NxD: np.ndarray, label_N: np.ndarray | None = None, **more: np.ndarray) -> Side:
    """One side of the grid, and what more there is of its rows, filled up with zeros and split over
    the devices.
    """
    n = len(z_NxD)
    label_N = np.zeros(n, np.int32) if label_N is None else label_N.astype(np.int32)
    made = {"z": np.asarray(z_NxD, np.float32), "label": label_N, "real": np.ones(n, bool)}
    mesh = jax.sharding.get_mesh()
    devices = 1 if mesh.empty else batch_devices(mesh)
    missing = -n % (devices * -(-FILLED // devices))
    made = {
        name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        for name, x in {**made, **more}.items()
    }
    return made if mesh.empty else dict(split_whole_batch(made, mesh))


def cosine(row: Side, col: Side) -> jax.Array:
    """−inf where a side is filling."""
    real = row["real"][:, None] & col["real"]
    return jnp.where(real, row["z"] @ col["z"].T, -jnp.inf)


def is_right(row: Side, col: Side) -> jax.Array:
    return row["label"][:, None] == col["label"]


@partial(jax.jit, static_argnames="score")
def _ahead(rows: Side, cols: Side, score: Score = cosine) -> jax.Array:
    """How many wrong columns lie before each row's best right one; exact up to 2^24 of them."""

    def seen(row: Side, col: Side, at: Any) -> jax.Array:
        found = score(row, col)
        return jnp.where(row["out"][:, None] == at.col, -jnp.inf, found) if "out" in row else found

    def right(row: Side, col: Side, params: Any, at: Any) -> dict[str, jax.Array]:
        return {"it": jnp.where(is_right(row, col), seen(row, col, at), -jnp.inf)}

    def ahead(row: Side, col: Side, params: Any, at: Any) -> dict[str, jax.Array]:
        before = seen(row, col, at) > row["best"][:, None] - TIE
        return {"it": (before & ~is_right(row, col)).astype(jnp.float32)}

    best_R = reduced(right, rows, cols, "max", "row")
    return reduced(ahead, {**rows, "best": best_R}, cols, "sum", "row")


@partial(jax.jit, static_argnames="k")
def _top(rows: Side, cols: Side, k: int) -> tuple[jax.Array, jax.Array]:
    def score(row: Side, col: Side, params: Any, at: Any) -> dict[str, jax.Array]:
        return {"it": cosine(row, col)}

    found = reduced(score, rows, cols, TopK(k), "row")
    return found.value, found.index


@jax.jit
def _lse(rows: Side, scale: jax.Array) -> jax.Array:
    def scaled(row: Side, col: Side, scale: jax.Array, at: Any) -> dict[str, jax.Array]:
        own = at.row[:, None] == at.col
        return {"it": jnp.where(own, -jnp.inf, scale * cosine(row, col))}

    return reduced(scaled, rows, rows, "logsumexp", "all", scale)


def reduced(tile: Any, rows: Side, cols: Side, op: Any, per: Any, params: Any = None) -> Any:
    """One statistic of a tile's one term, whole on every device."""
    reductions = {"it": Reduce(op, "it", per)}
    found = pair_reduce(tile, rows, cols, reductions, params, precision="highest")
    return jax.tree.map(whole, found["it"])
