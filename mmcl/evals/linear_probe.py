"""How well a linear classifier on frozen features names a label.

With features x standardised by the mean and deviation of the items it is fitted to,

    logistic:  min over W, b of  mean_i -log softmax(x_i W + b)[y_i] + l2/2 · ||W||²
    ridge:     min over W, b of  mean_i 1/2 || x_i W + b - onehot(y_i) ||² + l2/2 · ||W||²

The first by full-batch L-BFGS from zero, on the mesh, as Radford et al. 2021 (arXiv 2103.00020)
probe their encoders; the second in closed form. Decided here: l2 is of the mean and not of the sum,
so that it need not follow the number of items (scikit-learn's C is 1 / (N · l2), its alpha N · l2),
and features are standardised, so that it need not follow their scale. The x of all items, and their
(N, C) scores in fitting, are in memory at once.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.features import (
    accuracy,
    class_numbers,
    fitting_and_judged,
    is_right,
    largest_class,
    task,
)
from mmcl.evals.figure import Figures
from mmcl.mesh import batch_devices, split_whole_batch, whole
from mmcl.model import Model

STEPS = 1000
TOLERANCE = 1e-6  # of the largest entry of the gradient
ROUNDING = 2.0**-23  # of a step, beside the weights
ROWS = 4096  # scored at once
FILLED = 64  # items are filled up to a multiple, so that few sizes are compiled


class Linear(NamedTuple):
    """Scores of the classes are x W + b."""

    W: Any  # W_FxC
    b: Any  # b_C


def evaluate(
    embedded: Embedded,
    model: Model,
    *,
    modality: str = "image",
    label: str = "group",
    fit: str | None = None,
    before_projection: bool = False,
    method: Literal["logistic", "ridge"] = "logistic",
    l2: float = 1e-3,
) -> Figures:
    """Accuracy of naming the `label` of every item of a modality.

    Args:
      embedded: the split that is judged.
      model: encodes the split that the classifier is fitted to.
      modality: what is classified.
      label: which label is told.
      fit: the split that the classifier is fitted to; None: that which the model was trained on.
      before_projection: read features before the projection to the shared space.
      method: what is minimised.
      l2: its penalty, more than 0.

    Returns:
      Under `linear_probe_<label>/` (`linear_probe_<label>_before/` before the projection): `top1`;
      `mean_per_class`, top-1 averaged over the classes that occur; `chance`, top-1 of always naming
      the class most frequent in `fit`; `count` of items. Items of a class that `fit` has none of
      count as wrong, and so do ties.
    """
    if l2 <= 0:
        raise InputError(f"l2={l2} should be more than 0: else a probe may have no optimum")
    fitting, judged = fitting_and_judged(embedded, model, modality, label, fit, before_projection)
    class_N, class_M, classes = class_numbers(fitting, judged)
    x_NxF, x_MxF = standardised(fitting.x, judged.x)
    fitted = {"logistic": logistic, "ridge": ridge}[method](x_NxF, class_N, classes, l2)
    name = task("linear_probe", label, before_projection)
    figures = accuracy(name, named(fitted, x_MxF, class_M), judged)
    return figures | {f"{name}/chance": largest_class(class_N, class_M)}


def standardised(fitting_NxF: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """All by the mean and deviation of the first; a feature that is constant in it is left out
    (zero).
    """
    mean_F = fitting_NxF.mean(axis=0, dtype=np.float64)
    deviation_F = fitting_NxF.std(axis=0, dtype=np.float64)
    constant_F = deviation_F <= 1e-6 * np.abs(fitting_NxF).max(axis=0, initial=0)
    scale_F = np.where(constant_F, 0, 1 / np.where(constant_F, 1, deviation_F))
    return tuple(((x - mean_F) * scale_F).astype(np.float32) for x in (fitting_NxF, *others))


def named(fitted: Linear, x_NxF: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """Whether each item is named right: (N,) bool."""
    return np.concatenate(
        [
            is_right(x_NxF[i : i + ROWS] @ fitted.W + fitted.b, class_N[i : i + ROWS])
            for i in range(0, len(x_NxF), ROWS)
        ]
    )


def ridge(x_NxF: np.ndarray, class_N: np.ndarray, classes: int, l2: float) -> Linear:
    """In float64, by the F × F or the N × N system, whichever is smaller.

    The x are centred, so that b is the mean of the one-hot rows.
    """
    n = len(x_NxF)
    y_NxC = np.eye(classes)[class_N]
    b_C = y_NxC.mean(axis=0)
    x_NxF = x_NxF.astype(np.float64)
    if x_NxF.shape[1] <= n:
        gram_FxF = x_NxF.T @ x_NxF + n * l2 * np.eye(x_NxF.shape[1])
        return Linear(np.linalg.solve(gram_FxF, x_NxF.T @ (y_NxC - b_C)), b_C)
    gram_NxN = x_NxF @ x_NxF.T + n * l2 * np.eye(n)
    return Linear(x_NxF.T @ np.linalg.solve(gram_NxN, y_NxC - b_C), b_C)


def logistic(x_NxF: np.ndarray, class_N: np.ndarray, classes: int, l2: float) -> Linear:
    """By L-BFGS, until the gradient is within `TOLERANCE` of zero, or steps within rounding."""
    n = len(x_NxF)
    items = {"x": x_NxF, "class": class_N.astype(np.int32), "weight": np.full(n, 1 / n, np.float32)}
    mesh = jax.sharding.get_mesh()
    devices = 1 if mesh.empty else batch_devices(mesh)
    more = -n % (devices * -(-FILLED // devices))
    items = {key: np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) for key, x in items.items()}
    placed = items if mesh.empty else dict(split_whole_batch(items, mesh))
    return Linear(*jax.device_get(_logistic(placed, np.float32(l2), classes)))


@functools.partial(jax.jit, static_argnames="classes")
def _logistic(items: dict[str, Any], l2: jax.Array, classes: int) -> Linear:
    def loss(fitted: Linear) -> jax.Array:
        score_NxC = jnp.matmul(items["x"], fitted.W, precision="highest") + fitted.b
        nll_N = optax.softmax_cross_entropy_with_integer_labels(score_NxC, items["class"])
        return items["weight"] @ nll_N + l2 / 2 * jnp.square(fitted.W).sum()

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        fitted, state, _ = carry
        value, gradient = value_and_grad(fitted, state=state)
        update, state = solver.update(
            gradient, state, fitted, value=value, grad=gradient, value_fn=loss
        )
        moved = optax.apply_updates(fitted, update)
        return moved, state, _largest(update) > ROUNDING * _largest(moved)

    def unfinished(carry: Any) -> jax.Array:
        _, state, moving = carry
        count, gradient = (optax.tree.get(state, key) for key in ("count", "grad"))
        steep = (count == 0) | (_largest(gradient) > TOLERANCE)
        return moving & steep & (count < STEPS)

    start = Linear(jnp.zeros((items["x"].shape[1], classes)), jnp.zeros(classes))
    fitted, *_ = jax.lax.while_loop(unfinished, step, (start, solver.init(start), True))
    return jax.tree.map(whole, fitted)


def _largest(fitted: Linear) -> jax.Array:
    """Absolute entry."""
    return jnp.maximum(jnp.abs(fitted.W).max(), jnp.abs(fitted.b).max())
